/* CUDA kernels of optim.py. kernels.py defines LANES, WARPS, THREADS and WIDE for the compiler, and
   GATHERED = 128. */

/* Where GATHERED arrays are, and where each begins in the one that is to hold them all. */
struct Pieces { const float *at[GATHERED]; long long starts[GATHERED + 1]; };

/* out[starts[p] : starts[p + 1]] = the array at[p], or 0 if there is none; p is blockIdx.y. */
extern "C" __global__ void gather(float *out, Pieces pieces) {
    const float *piece = pieces.at[blockIdx.y];
    long long start = pieces.starts[blockIdx.y], size = pieces.starts[blockIdx.y + 1] - start;
    long long first = (long long)blockIdx.x * WIDE, end = min(first + WIDE, size);
    for (long long i = first + threadIdx.y * LANES + threadIdx.x; i < end; i += THREADS)
        out[start + i] = piece ? piece[i] : 0;
}

/* AdamW and the average of the weights, over everything in one pass. optim.AdamW has the formulas.
   Without an average to keep, w stands in for it, and the last line changes no finite weight.
   Where healthy is false, for a gradient that is not finite, nothing changes. */
extern "C" __global__ void adamw(float *w, const float *g, const float *decay, float *m, float *v,
                                 float *average, const bool *healthy, long long n, float lr,
                                 float gain1, float gain2, float unbias1, float unbias2, float eps,
                                 float weight_decay, float average_gain) {
    long long i = (long long)blockIdx.x * THREADS + threadIdx.y * LANES + threadIdx.x;
    if (i >= n || !*healthy) return;
    m[i] += gain1 * (g[i] - m[i]);
    v[i] += gain2 * (g[i] * g[i] - v[i]);
    w[i] -= lr * (m[i] / unbias1 / (sqrtf(v[i] / unbias2) + eps));
    w[i] -= lr * weight_decay * decay[i] * w[i];
    average[i] += average_gain * (w[i] - average[i]);
}
