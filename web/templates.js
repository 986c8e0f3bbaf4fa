// ComfyUI lists templates as they lie on the disk. Ours have an order: the whole edit as one node, Tiny Zoo, then each family.

import { api } from "../../scripts/api.js"

const PACK = decodeURIComponent(new URL(import.meta.url).pathname.split("/").at(-2))
const ORDER = [
  "edit_a_picture",
  "tiny_zoo_edit",
  "tiny_zoo_two_edits",
  "tiny_zoo_strengths",
  "tiny_zoo_guider",
  "tiny_zoo_attention",
  "tiny_zoo_folder",
  "tiny_zoo_distilled",
  "flow_tiny_zoo_edit",
  "sd15_edit",
  "sd15_generated",
  "sdxl_edit",
  "sd35_edit",
  "flux_edit",
  "anima_edit",
  "z_image_edit",
  "qwen_image_base_edit",
]

const listed = api.getWorkflowTemplates.bind(api)

api.getWorkflowTemplates = async () => {
  const templates = await listed()
  templates[PACK]?.sort((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b))
  return templates
}
