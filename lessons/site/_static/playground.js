"use strict";
// The page around mixer.js: draw or drop a picture, and see what the model makes of it.

const find = (id) => document.getElementById(id);
const paper = find("paper"), pen = paper.getContext("2d", { willReadFrequently: true });
const SIDE = paper.width;
let weights = null, waiting = false, last = null;

function say(text) { find("state").textContent = text; }

function later() {  // once for each picture that the screen shows
    if (!waiting) requestAnimationFrame(() => { waiting = false; show(); });
    waiting = true;
}

// values (rows, columns), blue below zero and orange above, on a canvas with one pixel a number
function paint(canvas, values, rows, columns) {
    canvas.width = columns;
    canvas.height = rows;
    const most = values.reduce((a, v) => Math.max(a, Math.abs(v)), 1e-12);
    const image = new ImageData(columns, rows);
    values.forEach((v, i) => {
        const t = Math.min(1, Math.abs(v) / most), end = v < 0 ? [0, 114, 178] : [213, 94, 0];
        image.data.set([...end.map((colour) => 255 + t * (colour - 255)), 255], 4 * i);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
}

function canvases(id, n) {
    const there = find(id);
    while (there.children.length > n) there.lastChild.remove();
    while (there.children.length < n) there.append(document.createElement("canvas"));
    return [...there.children];
}

function show() {
    const rgba = pen.getImageData(0, 0, SIDE, SIDE).data;
    if (!weights) return;
    const { options } = weights, P = options.patch_size, W = SIDE / P, S = W * W;
    const pixels = rgba.filter((_, i) => i % 4 < 3), start = performance.now();
    const { logits, tokens } = forward(weights, pixels);
    say(`${weights.model}, ${(performance.now() - start).toFixed(0)} ms a picture`);

    const cut = find("patches"), drawing = cut.getContext("2d");
    cut.width = cut.height = W * (P + 1) - 1;
    for (let s = 0; s < S; s++) {
        const x = s % W, y = Math.floor(s / W);
        drawing.drawImage(paper, x * P, y * P, P, P, x * (P + 1), y * (P + 1), P, P);
    }
    canvases("tokens", tokens.length).forEach((canvas, l) => {
        paint(canvas, tokens[l], S, options.hidden_dim);
        canvas.title = l ? `after block ${l}` : "patches after the first linear map";
    });
    const bars = softmax(logits).map((p, k) => [p, weights.class_names?.[k] ?? `class ${k}`]);
    find("bars").replaceChildren(...bars.map(([p, name]) => {
        const row = document.createElement("div"), bar = document.createElement("meter");
        bar.value = p;
        row.append(name, bar, `${(100 * p).toFixed(0)} %`);
        return row;
    }));
}

function showMaps() {
    const { options, arrays } = weights, W = SIDE / options.patch_size, S = W * W;
    const rows = arrays[`blocks.${find("block").value}.token_mlp.W1`];
    canvases("maps", options.tokens_mlp_dim).forEach((canvas, d) =>
        paint(canvas, rows.subarray(d * S, (d + 1) * S), W, W));
}

function open(buffer) {
    try {
        const read = readWeights(buffer);
        if (read.options.image_size !== SIDE) throw new Error(`expected images of side ${SIDE}`);
        if (!read.mean || !read.std) throw new Error("the file does not know its mean and std");
        weights = read;
        document.querySelectorAll(".seen").forEach((figure) => { figure.hidden = false; });
        find("block").replaceChildren(...Array.from({ length: read.options.num_blocks },
            (_, l) => new Option(`block ${l + 1}`, l)));
        showMaps();
        show();
    } catch (error) {
        say(`These weights cannot be used: ${error.message}.`);
    }
}

function openShipped() {
    open(Uint8Array.from(atob(PLAYED), (letter) => letter.charCodeAt(0)).buffer);
}

function wipe() {
    pen.fillStyle = "#e8e2d4";
    pen.fillRect(0, 0, SIDE, SIDE);
    later();
}

async function drop(file) {
    const picture = await createImageBitmap(file).catch(() => null);
    if (!picture) return say(`${file.name} is not a picture that this browser can read.`);
    const side = Math.min(picture.width, picture.height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture, (picture.width - side) / 2, (picture.height - side) / 2, side, side,
        0, 0, SIDE, SIDE);
    later();
}

function stroke(event) {
    if (!event.buttons) { last = null; return; }
    const box = paper.getBoundingClientRect();
    const here = [event.offsetX, event.offsetY].map((v) => v * SIDE / box.width);
    Object.assign(pen, { strokeStyle: find("colour").value, lineWidth: 4, lineCap: "round" });
    pen.beginPath();
    pen.moveTo(...(last ?? here));
    pen.lineTo(...here);
    pen.stroke();
    last = here;
    later();
}

["pointerdown", "pointermove"].forEach((name) => paper.addEventListener(name, stroke));
["pointerup", "pointerleave"].forEach((name) => paper.addEventListener(name, () => { last = null; }));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) drop(event.dataTransfer.files[0]);
});
find("picture").addEventListener("change", (event) => drop(event.target.files[0]));
find("weights").addEventListener("change", async (event) =>
    open(await event.target.files[0].arrayBuffer()));
find("shipped").addEventListener("click", openShipped);
find("wipe").addEventListener("click", wipe);
find("block").addEventListener("change", () => weights && showMaps());
wipe();
openShipped();
