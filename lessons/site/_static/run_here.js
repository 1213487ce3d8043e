"use strict";
// "Run this lesson here": cells become editable, and run in a worker of their own, in order.

const place = document.getElementById("run-here"), bar = place.querySelector(".run-bar");
const boxes = [...document.querySelectorAll("div.cell")];
let lesson = null, cells = [], worker = null, ready = false, todo = [], current = null;
let state = "", began = 0, last = null;  // last: why nothing runs any more

const here = (path) => new URL(path, document.baseURI).href;
const make = (name, properties, ...inside) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...inside);
    return made;
};
const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(0)} s`;

function say() {
    const n = cells.indexOf(current) + 1;
    const words = last ?? (n ? `Cell ${n} of ${cells.length}` : state);
    const status = bar.querySelector("[role=status]");
    if (status.textContent !== words) status.textContent = words;  // a screen reader reads it aloud
    if (last === null) bar.querySelector(".time").textContent = seconds(began);
    bar.querySelector("[data-stop]").hidden = last !== null;
    bar.querySelector("[data-run]").hidden = last === null;
}

function end(why) {
    for (const cell of [...todo, current]) cell?.button.classList.remove("waits");
    [todo, current, last] = [[], null, why];
    say();
}

// A page has one Python at a time; what ran in one before is gone.
function halt(why) {
    worker?.terminate();
    [worker, ready] = [null, false];
    for (const cell of cells) cell.ran = false;
    end(why);
}

function start() {
    worker = new Worker(here("_static/run_worker.js"), { type: "module" });
    worker.onmessage = ({ data }) => receive(data);
    worker.onerror = (event) => halt(`Python cannot run here: ${event.message ?? "no worker"}`);
    const { pyodide, packages } = lesson;
    worker.postMessage({ pyodide: here(pyodide), packages, archive: here("run/tinymixer.zip") });
}

function receive(data) {
    if (data.state) state = data.state;
    if (data.ready) [ready, began] = [true, performance.now()];
    if (data.kind) show(current, data);
    if (data.broken) return halt(`Python cannot run here: ${data.broken}`);
    if (data.done) {
        const cell = current;
        cell.ran = data.well;
        cell.time.textContent = seconds(cell.began);
        cell.button.classList.remove("waits");
        current = null;
        if (!data.well) return end(`Stopped at an error in cell ${cells.indexOf(cell) + 1}`);
    }
    next();
}

function next() {
    say();
    if (!ready || current) return;
    current = todo.shift() ?? null;
    if (!current) return end("Done");
    current.began = performance.now();
    current.committed?.remove();
    current.shown.replaceChildren();
    current.time.textContent = "";
    say();
    const name = `cell ${cells.indexOf(current) + 1}`;
    worker.postMessage({ source: current.code(), name });
}

// Run a cell, and before it those above it that this Python has not run.
function run(cell) {
    const before = cells.slice(0, cells.indexOf(cell)).filter((x) => !x.ran && x !== current);
    const more = [...before, cell].filter((x) => !todo.includes(x));
    if (!worker) start();
    if (last !== null || !current) began = performance.now();
    last = null;
    for (const x of more) x.button.classList.add("waits");
    todo.push(...more);
    next();
}

function show(cell, { kind, content, number }) {
    const old = number && document.querySelector(`.shown > [data-number="${number}"]`);
    if (kind === "text" && !number) {  // \r: back to where the line begins
        let end = cell.shown.lastChild;
        if (end?.className !== "text") cell.shown.append(end = make("pre", { className: "text" }));
        end.textContent = (end.textContent + content).replace(/[^\n]*\r(?!\n)/g, "");
        return;
    }
    const made = {
        png: () => make("img", { src: `data:image/png;base64,${content}`, alt: cell.alt }),
        svg: () => make("img", {
            src: `data:image/svg+xml,${encodeURIComponent(content)}`, alt: cell.alt,
        }),
        html: () => make("div", { className: kind, innerHTML: content }),
    };
    const part = made[kind]?.() ?? make("pre", { className: kind, textContent: content });
    if (number) part.dataset.number = number;
    if (old) old.replaceWith(part);
    else cell.shown.append(part);
}

// The code stays in colour until it is chosen to be changed.
function editor(box, cell) {
    const code = box.querySelector(".cell_input .highlight"), pre = code.querySelector("pre");
    const area = make("textarea", { value: cell.source, spellcheck: false, autocapitalize: "off" });
    area.setAttribute("aria-label", `code of cell ${cells.length + 1}`);
    const fit = () => { area.rows = area.value.split("\n").length; };
    if (pre.textContent.trim() !== cell.source.trim()) pre.textContent = cell.source;  // shorter
    pre.tabIndex = 0;
    pre.addEventListener("focus", () => { fit(); code.replaceWith(area); area.focus(); });
    area.addEventListener("input", fit);
    area.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.shiftKey) return;
        const line = area.value.slice(0, area.selectionStart).split("\n").pop();
        const set_in = line.match(/^ */)[0] + (line.endsWith(":") ? "    " : "");
        if (!set_in) return;
        event.preventDefault();
        document.execCommand("insertText", false, `\n${set_in}`);  // it can be undone
    });
    return () => area.value;
}

function prepare(box, i) {
    const cell = { ...lesson.cells[i], ran: false, committed: box.querySelector(".cell_output") };
    cell.code = editor(box, cell);
    cell.button = make("button", { type: "button", textContent: "Run", title: "Shift+Enter" });
    cell.button.addEventListener("click", () => run(cell));
    cell.time = make("span", { className: "time" });
    cell.shown = make("div", { className: "shown" });
    const folded = box.querySelector("details") ?? box.querySelector(".cell_input");
    folded.after(make("div", { className: "run-cell" }, cell.button, cell.time), cell.shown);
    box.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || !event.shiftKey) return;
        event.preventDefault();
        run(cell);
    });
    cells.push(cell);
}

async function begin() {
    if (cells.length) {
        halt(null);
        return run(cells.at(-1));
    }
    place.querySelector("p button").disabled = true;
    bar.hidden = false;
    document.body.append(bar);  // over the columns of the page
    try {
        lesson = await (await fetch(here(place.dataset.lesson))).json();
    } catch (error) {
        return end(location.protocol === "file:"
            ? "This needs a web server. In the folder of the book: python -m http.server 8000;"
              + " then open localhost:8000 in the browser."
            : `The lesson cannot be loaded: ${error.message}`);
    }
    boxes.forEach(prepare);
    place.querySelector("p").textContent =
        "Choose any code below to change it; its button, or Shift+Enter, runs it.";
    setInterval(() => { if (last === null) say(); }, 500);
    run(cells.at(-1));
}

for (const button of place.querySelectorAll("[data-run]")) button.addEventListener("click", begin);
bar.querySelector("[data-stop]").addEventListener("click", () => halt("Stopped"));
