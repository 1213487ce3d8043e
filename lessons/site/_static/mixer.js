"use strict";
// A Mixer in plain JavaScript: the equations of tinymixer/models/mixer.py, for one image.

// The arrays of a .safetensors file of `tinymixer convert`, and what it says of its model.
function readWeights(buffer) {
    const size = buffer.byteLength < 8 ? NaN : Number(new DataView(buffer).getBigUint64(0, true));
    if (!(size <= buffer.byteLength - 8)) throw new Error("it is not a .safetensors file");
    const { __metadata__: said, ...entries } =
        JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
    const record = JSON.parse(said?.record ?? "{}");
    const options = record.model_options ?? {};
    const [height, width = height] = [options.image_size].flat();
    if (!(record.model ?? "").startsWith("mixer_") || record.layout !== "tinymixer" ||
        options.gelu !== "tanh" || options.channels !== 3 || height !== width)
        throw new Error("expected a Mixer for square colour images, with GELU in its tanh form");
    const arrays = {};
    for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(entries)) {
        if (dtype !== "F32") throw new Error(`${name} is ${dtype}; expected F32`);
        arrays[name] = new Float32Array(buffer.slice(8 + size + from, 8 + size + to));
    }
    return { ...record, options: { ...options, image_size: width }, arrays };
}

// x (rows, inner) @ y (inner, columns)
function product(x, y, rows, inner, columns) {
    const z = new Float64Array(rows * columns), wide = Float64Array.from(y);
    for (let i = 0; i < rows; i++) {
        const row = z.subarray(i * columns, (i + 1) * columns);
        let k = 0;
        for (; k + 4 <= inner; k += 4) {  // four rows of y at once: a sum is loaded and stored less
            const at = i * inner + k, a = x[at], b = x[at + 1], c = x[at + 2], d = x[at + 3];
            const p = wide.subarray(k * columns), q = wide.subarray((k + 1) * columns);
            const r = wide.subarray((k + 2) * columns), s = wide.subarray((k + 3) * columns);
            for (let j = 0; j < columns; j++) row[j] += a * p[j] + b * q[j] + c * r[j] + d * s[j];
        }
        for (; k < inner; k++)
            for (let j = 0; j < columns; j++) row[j] += x[i * inner + k] * wide[k * columns + j];
    }
    return z;
}

const ofRow = (x, b) => x.map((value, i) => value + b[Math.floor(i / (x.length / b.length))]);
const ofColumn = (x, b) => x.map((value, i) => value + b[i % b.length]);
const sum = (x, y) => x.map((value, i) => value + y[i]);
const gelu = (x) => x.map((v) =>
    0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * v * (1 + 0.044715 * v * v))));

function layerNorm(x, gamma, beta, eps) {
    const C = gamma.length, y = new Float64Array(x.length);
    for (let s = 0; s < x.length; s += C) {
        const token = x.subarray(s, s + C);
        const mean = token.reduce((a, v) => a + v, 0) / C;
        const variance = token.reduce((a, v) => a + (v - mean) ** 2, 0) / C;
        for (let c = 0; c < C; c++)
            y[s + c] = (token[c] - mean) / Math.sqrt(variance + eps) * gamma[c] + beta[c];
    }
    return y;
}

// pixels 0..255 (side, side, 3)  ->  logits (K), and the tokens (S, C) before and after each block
function forward({ arrays, options, mean, std }, pixels) {
    const { image_size: side, patch_size: P, hidden_dim: C, tokens_mlp_dim: D_S } = options;
    const { channels_mlp_dim: D_C, num_blocks: L, num_classes: K, eps } = options;
    const W = side / P, S = W * W;
    const patches = new Float64Array(S * P * P * 3);
    patches.forEach((_, i) => {
        const colour = i % 3, x = Math.floor(i / 3) % P, y = Math.floor(i / 3 / P) % P;
        const s = Math.floor(i / 3 / P / P), row = Math.floor(s / W) * P + y, column = s % W * P + x;
        const pixel = pixels[(row * side + column) * 3 + colour];
        patches[i] = (pixel - mean[colour % mean.length]) / std[colour % std.length];
    });
    const get = (name) => arrays[name];
    const norm = (x, name) => layerNorm(x, get(`${name}.gamma`), get(`${name}.beta`), eps);
    let x = product(patches, get("patch_embed.linear.W"), S, P * P * 3, C);
    x = ofColumn(x, get("patch_embed.linear.b"));
    const tokens = [x];
    for (let l = 0; l < L; l++) {
        const mlp = (kind) => ["W1", "b1", "W2", "b2"].map((n) => get(`blocks.${l}.${kind}.${n}`));
        let [W1, b1, W2, b2] = mlp("token_mlp");
        let h = gelu(ofRow(product(W1, norm(x, `blocks.${l}.token_norm`), D_S, S, C), b1));
        x = sum(x, ofRow(product(W2, h, S, D_S, C), b2));
        [W1, b1, W2, b2] = mlp("channel_mlp");
        h = gelu(ofColumn(product(norm(x, `blocks.${l}.channel_norm`), W1, S, C, D_C), b1));
        x = sum(x, ofColumn(product(h, W2, S, D_C, C), b2));
        tokens.push(x);
    }
    const whole = product(new Float64Array(S).fill(1 / S), norm(x, "norm"), 1, S, C);
    return { logits: ofColumn(product(whole, get("head.W"), 1, C, K), get("head.b")), tokens };
}

function softmax(logits) {
    const most = Math.max(...logits), powers = Array.from(logits, (z) => Math.exp(z - most));
    const all = powers.reduce((a, b) => a + b);
    return powers.map((p) => p / all);
}

if (typeof module !== "undefined") module.exports = { readWeights, forward, softmax };
