// Workflows of earlier releases lack the widgets that came later. A widget's own default is for new nodes, so old nodes are told
// what they meant before they are made.

import { app } from "../../scripts/app.js"

// Each from the first widget on that 0.1.0, or the files before it, did not have. Names and places are promises.
const GUIDED = {
  checkpointing: "on demand",
  finest_layer: 1,
  negative_from: "inversion",
  cfg_start: 0,
  region: 0,
  blocks: "",
  noise_from: "inversion",
}
const MEANT = {
  Pix2PixZeroEditDirection: { from: 4, values: { kind: "thing", form: "mean by position" } },
  Pix2PixZeroCrossAttnGuidance: { from: 4, values: GUIDED },
  Pix2PixZeroCrossAttnGuidedSampler: { from: 5, values: GUIDED },
  Pix2PixZeroCrossAttnGuider: { from: 5, values: GUIDED },
}

function tell(node) {
  const meant = MEANT[node.type]
  if (!meant || !Array.isArray(node.widgets_values)) return
  Object.values(meant.values).forEach((value, i) => (node.widgets_values[meant.from + i] ??= value))
}

/** Files in API format name the inputs that they have, and ComfyUI has no hook for them. */
function tellApiFormat() {
  const load = app.loadApiJson
  app.loadApiJson = function (prompt, ...more) {
    const told = Object.entries(prompt).map(([id, node]) => {
      const values = MEANT[node.class_type]?.values ?? {}
      return [id, { ...node, inputs: { ...values, ...node.inputs } }]
    })
    return load.call(this, Object.fromEntries(told), ...more)
  }
}

app.registerExtension({
  name: "pix2pix-zero.earlier",

  setup() {
    if (app.loadApiJson) tellApiFormat()
  },

  // however a node comes: opened, inserted, pasted, in a blueprint
  nodeCreated(node) {
    if (!MEANT[node.comfyClass]) return
    const configure = node.configure
    node.configure = function (info, ...more) {
      tell(info)
      return configure.call(this, info, ...more)
    }
  },
})
