// A workflow of 0.1.0 says nothing of the form of its edit directions, which was the mean by position. The widget's own default
// is for new nodes, so an old workflow is told its form before its nodes are made.

import { app } from "../../scripts/app.js"

const KIND = 4 // places among the widgets of Edit Direction
const FORM = 5

function tell(nodes) {
  for (const node of nodes) {
    if (node.type !== "Pix2PixZeroEditDirection" || !Array.isArray(node.widgets_values)) continue
    node.widgets_values[KIND] ??= "thing"
    node.widgets_values[FORM] ??= "mean by position"
  }
}

app.registerExtension({
  name: "pix2pix-zero.forms",

  beforeConfigureGraph(graph) {
    tell(graph.nodes)
    for (const subgraph of graph.definitions?.subgraphs ?? []) tell(subgraph.nodes)
  },
})
