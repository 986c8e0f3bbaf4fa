// Edit Direction offers the edits that fit the checkpoint first, and greys out what a named edit does not use.

import { app } from "../../scripts/app.js"

const CUSTOM = "custom"
const OF_CUSTOM = ["source", "target", "sentences", "kind"]
const SUBGRAPH_INPUT = -10 // stands for the number of a node in links from the inputs of a subgraph

/** The node that an input comes from; out of a subgraph, what its node is connected to. */
function origin(node, slot) {
  const link = node.graph?.getLink(node.inputs?.[slot]?.link)
  if (!link) return undefined
  if (link.origin_id !== SUBGRAPH_INPUT) return node.graph.getNodeById(link.origin_id)
  const outer = (app.rootGraph ?? app.graph).nodes.find(({ subgraph }) => subgraph === node.graph)
  return outer && origin(outer, link.origin_slot)
}

/** The file that the text encoder of a node is loaded from, where that can be seen. */
function checkpoint(node) {
  for (let hops = 0; node && hops < 20; hops++) {
    const file = node.widgets?.find(({ name }) => name === "ckpt_name")
    if (file) return String(file.value)
    node = origin(node, node.inputs?.findIndex(({ type }) => type === "CLIP"))
  }
  return ""
}

function fittingFirst(edits, file) {
  if (!file) return edits
  const tiny = /tiny_zoo/i.test(file)
  const fits = (edit) => edit !== CUSTOM && edit.startsWith("tiny_zoo/") === tiny
  return [...edits.filter(fits), CUSTOM, ...edits.filter((edit) => !fits(edit) && edit !== CUSTOM)]
}

/** Let a widget list the edits in an order that follows the checkpoint, whenever it is asked for them. */
function order(node, edit) {
  let edits = edit.options.values
  const values = { get: () => fittingFirst(edits, checkpoint(node)), set: (given) => (edits = given), enumerable: true, configurable: true }
  const fixed = Object.getOwnPropertyDescriptor(edit, "options")
  if (fixed?.get && !fixed.set) Object.defineProperty(edit.options, "values", values)
  else edit.options = Object.defineProperty({ ...edit.options }, "values", values) // a copy: others may have the same
}

function greyOut(node, edit) {
  const linked = node.inputs.find(({ widget }) => widget?.name === "edit")?.link != null // what comes is not known here
  for (const widget of node.widgets.filter(({ name }) => OF_CUSTOM.includes(name))) {
    widget.disabled = !linked && edit.value !== CUSTOM
    if (widget.element) Object.assign(widget.element, { readOnly: widget.disabled }).style.opacity = widget.disabled ? 0.4 : 1
  }
  node.setDirtyCanvas(true)
}

app.registerExtension({
  name: "pix2pix-zero.edits",

  nodeCreated(node) {
    if (node.comfyClass !== "Pix2PixZeroEditDirection") return
    const edit = node.widgets.find(({ name }) => name === "edit")
    order(node, edit)
    const changed = edit.callback
    edit.callback = function (...given) {
      changed?.apply(this, given)
      greyOut(node, edit)
    }
    for (const event of ["onConfigure", "onConnectionsChange"]) {
      const heard = node[event]
      node[event] = function (...given) {
        heard?.apply(this, given)
        greyOut(node, edit)
      }
    }
    greyOut(node, edit)
  },

  // The node of a subgraph has a copy of the widget inside, or in later front ends one whose options cannot be exchanged, only changed.
  afterConfigureGraph() {
    for (const node of (app.rootGraph ?? app.graph).nodes) {
      if (!node.subgraph?.nodes.some(({ comfyClass }) => comfyClass === "Pix2PixZeroEditDirection")) continue
      const edit = node.widgets?.find(({ name }) => name === "edit")
      if (edit) order(node, edit)
    }
  },
})
