// Workflows of earlier releases lack the widgets that came later. A widget's own default is for new nodes, so old nodes are told
// what they meant before they are made.

import { app } from "../../scripts/app.js"

// Each from the first widget on that 0.1.0, or the files before it, did not have. Their places are promises.
// checkpointing, finest_layer, negative_from, cfg_start, region, blocks, noise_from
const GUIDED = ["on demand", 1, "inversion", 0, 0, "", "inversion"]
const MEANT = {
  Pix2PixZeroEditDirection: { from: 4, values: ["thing", "mean by position"] }, // kind, form
  Pix2PixZeroCrossAttnGuidance: { from: 4, values: GUIDED },
  Pix2PixZeroCrossAttnGuidedSampler: { from: 5, values: GUIDED },
  Pix2PixZeroCrossAttnGuider: { from: 5, values: GUIDED },
}

function tell(nodes) {
  for (const node of nodes) {
    const meant = MEANT[node.type]
    if (!meant || !Array.isArray(node.widgets_values)) continue
    meant.values.forEach((value, i) => (node.widgets_values[meant.from + i] ??= value))
  }
}

app.registerExtension({
  name: "pix2pix-zero.earlier",

  beforeConfigureGraph(graph) {
    tell(graph.nodes)
    for (const subgraph of graph.definitions?.subgraphs ?? []) tell(subgraph.nodes)
  },
})
