// What our nodes say after a run stands below their widgets, warnings in amber. It stays when the page is loaded again, when
// another workflow is looked at meanwhile, and when a run finds the node in ComfyUI's cache. The node of a subgraph says what
// those inside it say.

import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"

const STORE = "pix2pix-zero.saying" // in the session of this browser tab
const WIDGET = "pix2pix-zero saying"
const MARGIN = 10 // pixels that the front end leaves round such a widget
const NO_ID = "00000000-0000-0000-0000-000000000000" // of graphs that were given none

const said = new Map(JSON.parse(sessionStorage.getItem(STORE) ?? "[]")) // [graph, id of a run's node] as JSON -> {note, warning}
const runs = new Map() // id of a run -> {graph, nodes}, or the promise of it: id of its graph, ids of our nodes in it
const passedOver = new Map() // id of a run -> its nodes that were in ComfyUI's cache
const succeeded = [] // ids of runs that ComfyUI has yet to write into its history, after which it says that it executes none
const measured = new WeakMap() // element -> {width, height}: measuring is slow, and the front end asks whenever it draws

document.head.append(
  Object.assign(document.createElement("style"), {
    textContent: `
      .pix2pix-zero-saying { font: 12px/1.35 sans-serif; color: #ddd; overflow-wrap: anywhere; user-select: text; }
      .pix2pix-zero-saying p { margin: 0 0 4px; padding: 4px 6px; border-radius: 4px; background: #0004; white-space: pre-line; }
      .pix2pix-zero-saying .warning { color: #201500; background: #f5b041; }`,
  }),
)

const root = () => app.rootGraph ?? app.graph
const ours = (kind) => Boolean(kind?.startsWith("Pix2PixZero"))

/** A copy of an open workflow has its id, files in API format and cleared graphs have none: each gets an id of its own. */
function tellGraphsApart() {
  const clear = root().clear
  root().clear = function (...given) {
    clear.apply(this, given)
    this.id = LiteGraph.uuidv4()
  }
  const load = app.loadGraphData
  app.loadGraphData = function (graph, clean, view, workflow, ...more) {
    const others = app.extensionManager.workflow.openWorkflows.filter(({ path }) => path !== workflow?.path)
    const taken = graph && [NO_ID, ...others.map(({ activeState }) => activeState?.id)].includes(graph.id)
    return load.call(this, taken ? { ...graph, id: undefined } : graph, clean, view, workflow, ...more)
  }
}

/** The nodes on the way to a node of a run: "3:7" is node 7 in the subgraph of node 3. */
function way(id) {
  const nodes = []
  let graph = root()
  for (const part of String(id).split(":")) {
    const node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part))
    if (!node) return []
    nodes.push(node)
    graph = node.subgraph
  }
  return nodes
}

function draw(node, id) {
  if (!node.subgraph && !ours(node.comfyClass)) return
  const mine = [...said].filter(([key]) => {
    const [graph, at] = JSON.parse(key)
    return graph === root().id && (at === id || at.startsWith(`${id}:`)) && way(at).length
  })
  const entries = mine.sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }))
  const texts = (kind) => [...new Set(entries.flatMap(([, entry]) => entry[kind]).filter(Boolean))]
  const warnings = texts("warning")
  const notes = texts("note").filter((note) => !warnings.some((warning) => warning.includes(note)))
  const line = (className) => (textContent) => Object.assign(document.createElement("p"), { className, textContent })
  const lines = [...warnings.map(line("warning")), ...notes.map(line("note"))]
  let widget = node.widgets?.find(({ name }) => name === WIDGET)
  if (!widget && !lines.length) return
  widget ??= addWidget(node)
  widget.element.replaceChildren(...lines)
  measured.delete(widget.element)
  const [width, height] = node.size
  node.setSize([width, Math.max(height, node.computeSize()[1])])
  node.setDirtyCanvas(true, true)
}

function addWidget(node) {
  const element = Object.assign(document.createElement("div"), { className: "pix2pix-zero-saying" })
  const getMinHeight = () => heightOf(element, node.size[0] - 2 * MARGIN) + 2 * MARGIN
  const options = { serialize: false, hideOnZoom: false, getMinHeight }
  return Object.assign(node.addDOMWidget(WIDGET, "pix2pix-zero-saying", element, options), { serialize: false })
}

function heightOf(element, width) {
  if (measured.get(element)?.width !== width) measured.set(element, { width, height: measure(element, width) })
  return measured.get(element).height
}

function measure(element, width) {
  const copy = element.cloneNode(true)
  copy.style.cssText = `position: absolute; visibility: hidden; height: auto; width: ${width}px`
  document.body.append(copy)
  const height = copy.offsetHeight
  copy.remove()
  return height
}

function drawWay(id) {
  const parts = String(id).split(":")
  way(id).forEach((node, depth) => draw(node, parts.slice(0, depth + 1).join(":")))
}

/** What is known of a run, so that it is said where it belongs. */
function about(prompt, workflow) {
  return { graph: workflow?.id, nodes: Object.keys(prompt ?? {}).filter((id) => ours(prompt[id].class_type)) }
}

/** Runs that were queued before the page was loaded again, or by others, are known to ComfyUI. */
async function lookUp(run) {
  const queue = await (await api.fetchApi("/queue")).json()
  const history = await (await api.fetchApi(`/history/${run}`)).json() // after the queue: a run goes from there to here
  const entry = queue.queue_running.concat(queue.queue_pending).find(([, id]) => id === run) ?? history[run]?.prompt
  return about(entry?.[2], entry?.[3].extra_pnginfo?.workflow)
}

function find(run) {
  if (!runs.has(run)) runs.set(run, lookUp(run))
  return runs.get(run)
}

async function keep(run, id, entry) {
  const { graph } = await find(run)
  if (!graph) return // it was queued by a script, of no workflow
  const key = JSON.stringify([graph, String(id)])
  said.delete(key)
  if (entry) said.set(key, entry)
  if (graph === root().id) drawWay(id)
  try {
    sessionStorage.setItem(STORE, JSON.stringify([...said].slice(-500)))
  } catch {
    // it is full: what was said is lost when the page is loaded again
  }
}

const entryOf = (output) => ({ note: output.pix2pix_zero_note, warning: output.pix2pix_zero_warning })

/** Whether nodes of two prompts, and all that they depend on, are the same under whatever ids. */
function same(id, prompt, otherId, other, known = {}) {
  const compare = () => {
    const [one, two] = [prompt[id], other[otherId]]
    const names = Object.keys(one.inputs)
    if (one.class_type !== two.class_type || names.length !== Object.keys(two.inputs).length) return false
    return names.every((name) => {
      const [mine, its] = [one.inputs[name], two.inputs[name]]
      const linked = Array.isArray(mine) && prompt[mine[0]] && Array.isArray(its) && other[its[0]]
      if (!linked) return JSON.stringify(mine) === JSON.stringify(its)
      return mine[1] === its[1] && same(mine[0], prompt, its[0], other, known)
    })
  }
  return (known[`${id} ${otherId}`] ??= compare()) // many ways may lead to a node
}

/** ComfyUI passes over nodes in its cache without a word: find out what they said when they ran, perhaps in another workflow. */
async function recall(run, cached) {
  const { graph, nodes } = await find(run)
  const silent = cached.filter((id) => nodes.includes(id))
  if (!silent.length) return
  const before = new Map(said)
  const history = await (await api.fetchApi("/history?max_items=50")).json()
  const prompt = history[run]?.prompt[2]
  if (!prompt) return
  const spoken = Object.values(history).flatMap((entry) =>
    Object.entries(entry.outputs).flatMap(([id, output]) => (output.pix2pix_zero_note ? [{ id, output, prompt: entry.prompt[2] }] : [])),
  )
  for (const id of silent) {
    const key = JSON.stringify([graph, id])
    if (said.get(key) !== before.get(key)) continue // the next run has said something new meanwhile
    const earlier = spoken.findLast((then) => then.prompt[then.id] && same(id, prompt, then.id, then.prompt))
    if (earlier) keep(run, id, entryOf(earlier.output))
  }
}

app.registerExtension({
  name: "pix2pix-zero.saying",

  setup() {
    tellGraphsApart()
    // a run may wait for others, and another workflow be open when it begins
    const queue = api.queuePrompt
    api.queuePrompt = async function (number, prompt, ...rest) {
      const answer = await queue.call(this, number, prompt, ...rest)
      if (answer?.prompt_id) runs.set(answer.prompt_id, about(prompt.output, prompt.workflow))
      return answer
    }
    api.addEventListener("pix2pix-zero.saying", ({ detail }) => keep(detail.prompt_id, detail.node, { note: [detail.note], warning: [] }))
    api.addEventListener("executed", ({ detail: { prompt_id, node, output } }) => {
      if (output?.pix2pix_zero_note) keep(prompt_id, node, entryOf(output))
    })
    api.addEventListener("execution_cached", ({ detail: { prompt_id, nodes } }) => passedOver.set(prompt_id, nodes))
    api.addEventListener("execution_success", ({ detail: { prompt_id } }) => succeeded.push(prompt_id))
    api.addEventListener("executing", ({ detail: node }) => {
      if (node == null) for (const run of succeeded.splice(0)) recall(run, passedOver.get(run) ?? [])
    })
    api.addEventListener("execution_error", ({ detail }) => keep(detail.prompt_id, detail.node_id))
    api.addEventListener("execution_interrupted", async ({ detail }) => {
      if (!ours(detail.node_type) || !(await find(detail.prompt_id)).graph) return // ComfyUI tells every browser of a script's
      keep(detail.prompt_id, detail.node_id, { note: ["Cancelled."], warning: [] })
      app.extensionManager.toast?.add({ severity: "info", summary: "Cancelled", detail: "The edit was cancelled.", life: 4000 })
    })
  },

  afterConfigureGraph() {
    for (const key of said.keys()) {
      const [graph, id] = JSON.parse(key)
      if (graph === root().id) drawWay(id)
    }
  },
})
