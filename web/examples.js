// A shipped workflow brings its pictures along: when it is opened, they are uploaded into ComfyUI's input folder, as if they
// were dropped onto the LoadImage node by hand. ComfyUI keeps one copy of equal files, and gives another name to ours where
// a different file has its name.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const EXAMPLE = "pix2pix-zero example" // the property of a node: a picture's name, or [folder/name, ...] for a folder
const uploaded = new Map() // where it belongs -> its name there
api.addEventListener("reconnected", () => uploaded.clear()) // ComfyUI was started again, perhaps with another input folder

async function upload(path) {
  const [name, folder = ""] = path.split("/").reverse()
  if (!/^\w+\.png$/.test(name)) throw new Error(`pix2pix-zero has no example ${name}`) // a workflow may come from anybody
  const picture = await fetch(new URL(`examples/${name}`, import.meta.url))
  if (!picture.ok) throw new Error(`pix2pix-zero has no example ${name} (status ${picture.status})`)
  const body = new FormData()
  body.append("image", await picture.blob(), name)
  body.append("subfolder", folder)
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  if (!answer.ok) throw new Error(`ComfyUI refuses the upload of ${name} (status ${answer.status})`)
  return (await answer.json()).name
}

async function bring(path) {
  if (!uploaded.has(path)) uploaded.set(path, await upload(path))
  return uploaded.get(path)
}

app.registerExtension({
  name: "pix2pix-zero.examples",

  async beforeConfigureGraph(graph) {
    for (const node of graph.nodes) {
      const example = node.properties?.[EXAMPLE]
      if (!example) continue
      const [chosen] = node.widgets_values
      if (example === chosen) {
        node.widgets_values[0] = await bring(example)
        // the user's own picture has the name: should it be chosen, it is no example
        if (node.widgets_values[0] !== example) node.properties[EXAMPLE] = []
      } else if (Array.isArray(example))
        for (const path of example) if (path.startsWith(`${chosen}/`)) await bring(path)
      // in all other cases the user has chosen another picture or folder
    }
  },

  loadedGraphNode(node) {
    if (!node.properties?.[EXAMPLE]) return
    const [widget] = node.widgets ?? []
    const choices = widget?.options?.values // none where this ComfyUI does not have the node
    if (choices && !choices.includes(widget.value)) choices.push(widget.value)
  },
})
