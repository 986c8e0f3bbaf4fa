// A shipped workflow brings its picture along: when it is opened, the picture is uploaded into ComfyUI's input folder, as
// if it were dropped onto the LoadImage node by hand. ComfyUI keeps one copy of equal files, and gives another name to
// ours where a different file has its name.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const EXAMPLE = "pix2pix-zero example" // the property of a node that holds the picture's name
const uploaded = new Map() // name here -> name in the input folder

async function upload(name) {
  const picture = await fetch(new URL(`examples/${name}`, import.meta.url))
  if (!picture.ok) throw new Error(`pix2pix-zero has no example ${name} (status ${picture.status})`)
  const body = new FormData()
  body.append("image", await picture.blob(), name)
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  if (!answer.ok) throw new Error(`ComfyUI refuses the upload of ${name} (status ${answer.status})`)
  return (await answer.json()).name
}

app.registerExtension({
  name: "pix2pix-zero.examples",

  async beforeConfigureGraph(graph) {
    for (const node of graph.nodes) {
      const name = node.properties?.[EXAMPLE]
      if (!name || node.widgets_values[0] !== name) continue // none, or the user has chosen another picture
      if (!uploaded.has(name)) uploaded.set(name, await upload(name))
      node.widgets_values[0] = uploaded.get(name)
    }
  },

  loadedGraphNode(node) {
    if (!node.properties?.[EXAMPLE]) return
    const widget = node.widgets.find((widget) => widget.name === "image")
    if (!widget.options.values.includes(widget.value)) widget.options.values.push(widget.value)
  },
})
