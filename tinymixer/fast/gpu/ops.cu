/* CUDA kernels of ops.py: what lies between the matrix products of a training step.

   All arrays are C-contiguous. Numbers are float32, and so is every sum; only what products take is
   kept as `stored`, float32 or bfloat16. A kernel adds in an order that depends on shapes alone: no
   atomics, so the same input gives the same bits. A sum over many blocks has two stages: each block
   leaves one part per result, and `sum_parts` adds the parts.

   A matrix (rows, columns) is walked in one of two ways, by the axis that shares a bias:

     columns   b (columns,), as a channel MLP's. A block of 32 x 8 threads takes 32 packs of columns
               and TALL rows: a warp reads neighbours, and each thread stays in its columns.
     rows      b (rows,), as a token MLP's. A block of 32 x 8 threads takes WIDE elements of one row.

   A thread reads and writes PACK neighbours at once, 16 bytes of what is stored: memory is fast
   where much is asked of it at a time. PACK divides the columns; 1 always does.

   The grid is (ceil(columns / (32 PACK)), ceil(rows / TALL)), or (ceil(columns / WIDE), rows).
   kernels.py decides LANES = 32, WARPS = 8, TALL and WIDE, and for each launch STORED, PACK and
   PACKS; it defines them for the compiler. */

/* The upper half of a float32: its exponent, and 7 of 23 bits of mantissa. */
struct bf16 {
    unsigned short bits;
    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
    __device__ bf16 &operator=(float x) {  /* to nearest, ties to even */
#if __CUDA_ARCH__ >= 800  /* in one instruction */
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
        unsigned all = __float_as_uint(x);
        bits = x == x ? (all + 0x7FFF + (all >> 16 & 1)) >> 16 : 0x7FFF;
#endif
        return *this;
    }
};

typedef STORED stored;

template <class T>
struct alignas(PACK * sizeof(T)) Pack { T at[PACK]; };

/* PACK elements of x from i on. */
template <class T>
__device__ Pack<T> &pack(T *x, long long i) { return *(Pack<T> *)(x + i); }

template <class T>
__device__ const Pack<T> &pack(const T *x, long long i) { return *(const Pack<T> *)(x + i); }

#define EACH(k) for (int k = 0; k < PACK; k++)

/* f(i, row, column) for each pack that this thread has of its columns; i is its first element. */
template <class F>
__device__ void walk_columns(int rows, int columns, F f) {
    int column = (blockIdx.x * LANES + threadIdx.x) * PACK;
    int start = blockIdx.y * TALL, end = start + min(TALL, rows - start);
    if (column < columns)
        for (int row = start + threadIdx.y; row < end; row += WARPS)
            f((long long)row * columns + column, row, column);
}

/* f(i, row, column) for each pack that this thread has of its block's row. */
template <class F>
__device__ void walk_row(int columns, F f) {
    int row = blockIdx.y, start = blockIdx.x * WIDE, end = start + min(WIDE, columns - start);
    for (int column = start + (threadIdx.y * LANES + threadIdx.x) * PACK; column < end;
         column += WARPS * LANES * PACK)
        f((long long)row * columns + column, row, column);
}

__device__ float sum_of_warp(float x) {  /* in every lane: they all add the same pairs */
    for (int apart = LANES / 2; apart; apart /= 2) x += __shfl_xor_sync(~0u, x, apart);
    return x;
}

__device__ float max_of_warp(float x) {
    for (int apart = LANES / 2; apart; apart /= 2)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, apart));
    return x;
}

/* part[column] = the sum of s over the 8 threads that share the column: for LANES * PACK columns,
   from `first` on, of all `columns`. */
__device__ void leave_column_part(const float *s, float *part, int first, int columns) {
    __shared__ float sums[WARPS][LANES * PACK];
    EACH(k) sums[threadIdx.y][threadIdx.x * PACK + k] = s[k];
    __syncthreads();
    for (int j = threadIdx.y * LANES + threadIdx.x; j < LANES * PACK; j += WARPS * LANES)
        if (first + j < columns) {
            float total = sums[0][j];
            for (int warp = 1; warp < WARPS; warp++) total += sums[warp][j];
            part[first + j] = total;
        }
    __syncthreads();  /* or a second call would overwrite what is still being read */
}

/* parts[blockIdx.y][column], for a block that walked columns. */
__device__ void leave_column_parts(const float *s, float *parts, int columns) {
    leave_column_part(s, parts + (long long)blockIdx.y * columns, blockIdx.x * LANES * PACK,
                      columns);
}

/* parts[blockIdx.x][row] = the sum of s over the block. */
__device__ void leave_row_part(float s, float *parts) {
    __shared__ float sums[WARPS];
    s = sum_of_warp(s);
    if (threadIdx.x == 0) sums[threadIdx.y] = s;
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        for (int warp = 1; warp < WARPS; warp++) s += sums[warp];
        parts[(long long)blockIdx.x * gridDim.y + blockIdx.y] = s;
    }
}

/* GELU: ops/gelu.py says what the two forms are. ------------------------------------------------ */

#define SLOPE 0.7978845608028654f         /* sqrt(2 / pi) */
#define CUBIC 0.044715f
#define FAR 1024.0f
#define INV_SQRT2 0.7071067811865476f
#define INV_SQRT_2PI 0.3989422804014327f

__device__ float normal_cdf(float x) { return 0.5f * erfcf(-INV_SQRT2 * x); }

/* Beside bfloat16, whose half memory is read in half the time, arithmetic would set the pace: the
   short exponential is off by some 1e-6. */
__device__ float exp_beside_stored(float x) {
    return sizeof(stored) < sizeof(float) ? __expf(x) : expf(x);
}

/* (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), with no tanh; exp may reach infinity, and s is 0 then. */
__device__ float tanh_gate(float x) {
    return __fdividef(1, 1 + exp_beside_stored(-2 * SLOPE * x * (1 + CUBIC * x * x)));
}

__device__ float gelu(float x, int erf) {
    return x * (erf ? normal_cdf(x) : tanh_gate(x));
}

__device__ float gelu_derivative(float x, int erf) {
    if (erf) return normal_cdf(x) + x * expf(-0.5f * x * x) * INV_SQRT_2PI;
    float s = tanh_gate(x), square = fminf(x * x, FAR);  /* beyond, s (1 - s) is 0 */
    return s + x * s * (1 - s) * 2 * SLOPE * (1 + 3 * CUBIC * square);
}

/* a = gelu(h + b): the product h is kept as it is, and backward adds b once more. */
extern "C" __global__ void gelu_columns(const stored *__restrict__ h, const float *__restrict__ b,
                                        stored *__restrict__ a, int rows, int columns, int erf) {
    walk_columns(rows, columns, [&](long long i, int, int column) {
        Pack<stored> x = pack(h, i), y;
        EACH(k) y.at[k] = gelu(x.at[k] + b[column + k], erf);
        pack(a, i) = y;
    });
}

extern "C" __global__ void gelu_rows(const stored *__restrict__ h, const float *__restrict__ b,
                                     stored *__restrict__ a, int rows, int columns, int erf) {
    walk_row(columns, [&](long long i, int row, int) {
        Pack<stored> x = pack(h, i), y;
        EACH(k) y.at[k] = gelu(x.at[k] + b[row], erf);
        pack(a, i) = y;
    });
}

/* d, which is da, becomes dh = da gelu'(h + b); parts are those of db. */
extern "C" __global__ void gelu_backward_columns(const stored *__restrict__ h,
                                                 const float *__restrict__ b,
                                                 stored *__restrict__ d, float *__restrict__ parts,
                                                 int rows, int columns, int erf) {
    float db[PACK] = {};
    walk_columns(rows, columns, [&](long long i, int, int column) {
        Pack<stored> x = pack(h, i), y = pack(d, i);
        EACH(k) {
            float dh = y.at[k] * gelu_derivative(x.at[k] + b[column + k], erf);
            db[k] += dh;
            y.at[k] = dh;
        }
        pack(d, i) = y;
    });
    leave_column_parts(db, parts, columns);
}

extern "C" __global__ void gelu_backward_rows(const stored *__restrict__ h,
                                              const float *__restrict__ b, stored *__restrict__ d,
                                              float *__restrict__ parts, int rows, int columns,
                                              int erf) {
    float db = 0;
    walk_row(columns, [&](long long i, int row, int) {
        Pack<stored> x = pack(h, i), y = pack(d, i);
        EACH(k) {
            float dh = y.at[k] * gelu_derivative(x.at[k] + b[row], erf);
            db += dh;
            y.at[k] = dh;
        }
        pack(d, i) = y;
    });
    leave_row_part(db, parts);
}

/* Into a product and out of it. ------------------------------------------------------------------ */

/* y = x + b, where a product leaves x as `stored`; x and y may be the same array. */
extern "C" __global__ void add_columns(const stored *x, const float *__restrict__ b, float *y,
                                       int rows, int columns) {
    walk_columns(rows, columns, [&](long long i, int, int column) {
        Pack<stored> from = pack(x, i);
        Pack<float> to;
        EACH(k) to.at[k] = from.at[k] + b[column + k];
        pack(y, i) = to;
    });
}

extern "C" __global__ void add_rows(const stored *x, const float *__restrict__ b, float *y,
                                    int rows, int columns) {
    walk_row(columns, [&](long long i, int row, int) {
        Pack<stored> from = pack(x, i);
        Pack<float> to;
        EACH(k) to.at[k] = from.at[k] + b[row];
        pack(y, i) = to;
    });
}

/* z = x + y. */
extern "C" __global__ void add(const float *__restrict__ x, const float *__restrict__ y,
                               float *__restrict__ z, int columns) {
    walk_row(columns, [&](long long i, int, int) {
        Pack<float> of_x = pack(x, i), of_y = pack(y, i);
        EACH(k) of_x.at[k] += of_y.at[k];
        pack(z, i) = of_x;
    });
}

/* y = x as `stored`. */
extern "C" __global__ void store(const float *__restrict__ x, stored *__restrict__ y, int columns) {
    walk_row(columns, [&](long long i, int, int) {
        Pack<float> from = pack(x, i);
        Pack<stored> to;
        EACH(k) to.at[k] = from.at[k];
        pack(y, i) = to;
    });
}

/* The same, unless nothing would change, and on the way parts of the sums of x. */
extern "C" __global__ void sum_columns(const float *__restrict__ x, stored *__restrict__ y,
                                       float *__restrict__ parts, int rows, int columns) {
    float s[PACK] = {};
    walk_columns(rows, columns, [&](long long i, int, int) {
        Pack<float> from = pack(x, i);
        Pack<stored> to;
        EACH(k) s[k] += from.at[k], to.at[k] = from.at[k];
        if (sizeof(stored) < sizeof(float)) pack(y, i) = to;
    });
    leave_column_parts(s, parts, columns);
}

extern "C" __global__ void sum_rows(const float *__restrict__ x, stored *__restrict__ y,
                                    float *__restrict__ parts, int rows, int columns) {
    float s = 0;
    walk_row(columns, [&](long long i, int, int) {
        Pack<float> from = pack(x, i);
        Pack<stored> to;
        EACH(k) s += from.at[k], to.at[k] = from.at[k];
        if (sizeof(stored) < sizeof(float)) pack(y, i) = to;
    });
    leave_row_part(s, parts);
}

/* total[j] = sum_p parts[p][j], the second stage of every sum. One block per LANES * PACK results. */
extern "C" __global__ void sum_parts(const float *__restrict__ parts, float *__restrict__ total,
                                     int count, int width) {
    int j = (blockIdx.x * LANES + threadIdx.x) * PACK;
    float s[PACK] = {};
    if (j < width)
#pragma unroll 16  /* parts on their way at a time: there are few threads to wait with */
        for (int p = threadIdx.y; p < count; p += WARPS) {
            Pack<float> part = pack(parts, (long long)p * width + j);
            EACH(k) s[k] += part.at[k];
        }
    leave_column_parts(s, total, width);
}

/* LayerNorm: one warp a row, which its lanes hold in PACKS packs each. Norm in ops/norm.py has the
   formulas. -------------------------------------------------------------------------------------- */

/* For each pack p of a row of C that this lane has, and its first column c. */
#define EACH_PACK(p, c) \
    for (int p = 0, c = threadIdx.x * PACK; p < PACKS; p++, c += LANES * PACK) if (c < C)

extern "C" __global__ void layer_norm(const float *__restrict__ x, const float *__restrict__ gamma,
                                      const float *__restrict__ beta, float *__restrict__ y,
                                      float *__restrict__ mean, float *__restrict__ scale,
                                      int rows, int C, float eps) {
    int row = blockIdx.x * WARPS + threadIdx.y;
    if (row >= rows) return;  /* the whole warp leaves */
    long long start = (long long)row * C;
    Pack<float> of_x[PACKS];
    float sum = 0, squares = 0;
    EACH_PACK(p, c) {
        of_x[p] = pack(x, start + c);
        EACH(k) sum += of_x[p].at[k];
    }
    float mu = sum_of_warp(sum) / C;
    EACH_PACK(p, c) EACH(k) squares += (of_x[p].at[k] - mu) * (of_x[p].at[k] - mu);
    float inverse = 1 / sqrtf(sum_of_warp(squares) / C + eps);
    EACH_PACK(p, c) {
        Pack<float> of_y;
        EACH(k) of_y.at[k] = (of_x[p].at[k] - mu) * inverse * gamma[c + k] + beta[c + k];
        pack(y, start + c) = of_y;
    }
    if (threadIdx.x == 0) mean[row] = mu, scale[row] = inverse;
}

/* dx, and parts (blocks, 2, C) of dgamma and of dbeta. A block takes NORM_ROWS rows. */
extern "C" __global__ void layer_norm_backward(const float *__restrict__ dy,
                                               const float *__restrict__ x,
                                               const float *__restrict__ gamma,
                                               const float *__restrict__ mean,
                                               const float *__restrict__ scale,
                                               float *__restrict__ dx, float *__restrict__ parts,
                                               int rows, int C) {
    float dgamma[PACKS][PACK] = {}, dbeta[PACKS][PACK] = {};
    int first = blockIdx.x * NORM_ROWS, end = first + min(NORM_ROWS, rows - first);
    for (int row = first + threadIdx.y; row < end; row += WARPS) {
        long long start = (long long)row * C;
        float mu = mean[row], inverse = scale[row], g_mean = 0, g_x_hat_mean = 0;
        Pack<float> g[PACKS], x_hat[PACKS];
        EACH_PACK(p, c) {
            g[p] = pack(dy, start + c), x_hat[p] = pack(x, start + c);
            EACH(k) {
                x_hat[p].at[k] = (x_hat[p].at[k] - mu) * inverse;
                dgamma[p][k] += g[p].at[k] * x_hat[p].at[k];
                dbeta[p][k] += g[p].at[k];
                g[p].at[k] *= gamma[c + k];
                g_mean += g[p].at[k];
                g_x_hat_mean += g[p].at[k] * x_hat[p].at[k];
            }
        }
        g_mean = sum_of_warp(g_mean) / C;
        g_x_hat_mean = sum_of_warp(g_x_hat_mean) / C;
        EACH_PACK(p, c) {
            EACH(k) g[p].at[k] = inverse * (g[p].at[k] - g_mean - x_hat[p].at[k] * g_x_hat_mean);
            pack(dx, start + c) = g[p];
        }
    }
    float *part = parts + (long long)blockIdx.x * 2 * C;
    for (int p = 0; p < PACKS; p++) {
        leave_column_part(dgamma[p], part, p * LANES * PACK, C);
        leave_column_part(dbeta[p], part + C, p * LANES * PACK, C);
    }
}

/* GroupNorm and BatchNorm: norms over columns of (S, B C). GroupNorm's groups are the w = C columns
   of an image, BatchNorm's the columns of a channel, which lie w = 1 wide among those of the others.
   Norm in ops/norm.py has the formulas. ----------------------------------------------------------- */

__device__ int group_of(int column, int w, int groups) { return column / w % groups; }

__device__ int column_of(int group, int k, int w, int groups) {  /* the k-th of a group */
    return (k / w * groups + group) * w + k % w;
}

/* Of n numbers: their mean, and what their squared distances from it add up to. */
struct Moments { float n, mean, squares; };

/* Of both together. Means are subtracted and not squares of sums: nothing cancels. */
__device__ Moments together(Moments a, Moments b) {
    float n = a.n + b.n, apart = b.mean - a.mean, share = n ? b.n / n : 0;
    return {n, a.mean + apart * share, a.squares + b.squares + apart * apart * a.n * share};
}

/* parts[blockIdx.y][column], for a block that walks columns. */
extern "C" __global__ void norm_moments(const float *__restrict__ x, float *__restrict__ parts,
                                        int rows, int columns) {
    __shared__ Moments of_warp[WARPS][LANES * PACK];
    Moments all[PACK] = {};
    walk_columns(rows, columns, [&](long long i, int, int) {
        Pack<float> of_x = pack(x, i);
        EACH(k) all[k] = together(all[k], {1, of_x.at[k], 0});
    });
    EACH(k) of_warp[threadIdx.y][threadIdx.x * PACK + k] = all[k];
    __syncthreads();
    int first = blockIdx.x * LANES * PACK;
    for (int j = threadIdx.y * LANES + threadIdx.x; j < LANES * PACK; j += WARPS * LANES)
        if (first + j < columns) {
            Moments total = of_warp[0][j];
            for (int warp = 1; warp < WARPS; warp++) total = together(total, of_warp[warp][j]);
            ((Moments *)parts)[(long long)blockIdx.y * columns + first + j] = total;
        }
}

/* mean, variance and scale (groups,), from `count` parts of each column: one warp a group. */
extern "C" __global__ void norm_groups(const float *__restrict__ parts, float *__restrict__ mean,
                                       float *__restrict__ variance, float *__restrict__ scale,
                                       int count, int columns, int w, int groups, float eps) {
    int group = blockIdx.x * WARPS + threadIdx.y;
    if (group >= groups) return;
    Moments all = {};
    for (int part = 0; part < count; part++, parts += 3 * columns)
        for (int k = threadIdx.x; k < columns / groups; k += LANES)
            all = together(all, ((const Moments *)parts)[column_of(group, k, w, groups)]);
    for (int apart = LANES / 2; apart; apart /= 2)
        all = together(all, {__shfl_xor_sync(~0u, all.n, apart),
                             __shfl_xor_sync(~0u, all.mean, apart),
                             __shfl_xor_sync(~0u, all.squares, apart)});
    if (threadIdx.x == 0) {
        mean[group] = all.mean, variance[group] = all.squares / all.n;
        scale[group] = 1 / sqrtf(all.squares / all.n + eps);
    }
}

extern "C" __global__ void norm_forward(const float *__restrict__ x,
                                        const float *__restrict__ gamma,
                                        const float *__restrict__ beta,
                                        const float *__restrict__ mean,
                                        const float *__restrict__ scale, float *__restrict__ y,
                                        int rows, int columns, int C, int w, int groups) {
    walk_columns(rows, columns, [&](long long i, int, int column) {
        Pack<float> of_x = pack(x, i), of_y;
        EACH(k) {
            int group = group_of(column + k, w, groups), c = (column + k) % C;
            of_y.at[k] = (of_x.at[k] - mean[group]) * scale[group] * gamma[c] + beta[c];
        }
        pack(y, i) = of_y;
    });
}

/* parts (blocks, 2, columns) of the sums of dy x_hat and of dy over the rows. */
extern "C" __global__ void norm_sums(const float *__restrict__ dy, const float *__restrict__ x,
                                     const float *__restrict__ mean,
                                     const float *__restrict__ scale, float *__restrict__ parts,
                                     int rows, int columns, int w, int groups) {
    float dy_x_hat[PACK] = {}, dys[PACK] = {};
    walk_columns(rows, columns, [&](long long i, int, int column) {
        Pack<float> of_dy = pack(dy, i), of_x = pack(x, i);
        EACH(k) {
            int group = group_of(column + k, w, groups);
            dy_x_hat[k] += of_dy.at[k] * (of_x.at[k] - mean[group]) * scale[group];
            dys[k] += of_dy.at[k];
        }
    });
    float *part = parts + (long long)blockIdx.y * 2 * columns;
    leave_column_part(dy_x_hat, part, blockIdx.x * LANES * PACK, columns);
    leave_column_part(dys, part + columns, blockIdx.x * LANES * PACK, columns);
}

/* means (2, groups) of g x_hat and of g = gamma dy, from these sums: one warp a group of n. */
extern "C" __global__ void norm_means(const float *__restrict__ sums,
                                      const float *__restrict__ gamma, float *__restrict__ means,
                                      int columns, int C, int w, int groups, float n) {
    int group = blockIdx.x * WARPS + threadIdx.y;
    if (group >= groups) return;
    float g_x_hat = 0, g = 0;
    for (int k = threadIdx.x; k < columns / groups; k += LANES) {
        int j = column_of(group, k, w, groups);
        g_x_hat += gamma[j % C] * sums[j];
        g += gamma[j % C] * sums[columns + j];
    }
    g_x_hat = sum_of_warp(g_x_hat), g = sum_of_warp(g);
    if (threadIdx.x == 0) means[group] = g_x_hat / n, means[groups + group] = g / n;
}

extern "C" __global__ void norm_backward(const float *__restrict__ dy, const float *__restrict__ x,
                                         const float *__restrict__ mean,
                                         const float *__restrict__ scale,
                                         const float *__restrict__ gamma,
                                         const float *__restrict__ means, float *__restrict__ dx,
                                         int rows, int columns, int C, int w, int groups) {
    const float *g_x_hat_mean = means, *g_mean = means + groups;
    walk_columns(rows, columns, [&](long long i, int, int column) {
        Pack<float> of_dy = pack(dy, i), of_x = pack(x, i);
        EACH(k) {
            int group = group_of(column + k, w, groups);
            float x_hat = (of_x.at[k] - mean[group]) * scale[group];
            float g = of_dy.at[k] * gamma[(column + k) % C];
            of_x.at[k] = scale[group] * (g - g_mean[group] - x_hat * g_x_hat_mean[group]);
        }
        pack(dx, i) = of_x;
    });
}

/* Softmax cross-entropy: one warp a row of logits, 8 rows a block. ------------------------------- */

/* The wanted share of class k: (1 - alpha) q + alpha / K, q from `probabilities` (rows, K) where
   soft, or else 1 for the class number of the row. A number that is no class makes it NaN. */
__device__ float wanted(const long long *classes, const float *probabilities, int soft, int row,
                        int k, int K, float alpha) {
    float q;
    if (soft) q = probabilities[(long long)row * K + k];
    else if (classes[row] < 0 || classes[row] >= K) q = nanf("");
    else q = classes[row] == k;
    return (1 - alpha) * q + alpha / K;
}

/* losses[row] = -sum_k q log p / n, with log p = logit - log_sum[row]. Of `classes` and
   `probabilities` only the one that `soft` names is read. n is the number of rows; or, where some
   are ignored, `counted`, of those whose class is not `ignore`. The others lose nothing. */
extern "C" __global__ void cross_entropy(const float *logits, const long long *classes,
                                         const float *probabilities, const float *counted,
                                         float *losses, float *log_sums, int rows, int K, int soft,
                                         float alpha, int ignores, long long ignore) {
    int row = blockIdx.x * WARPS + threadIdx.y;
    if (row >= rows) return;
    logits += (long long)row * K;
    float top = logits[0], sum = 0, loss = 0;
    for (int k = threadIdx.x; k < K; k += LANES) top = fmaxf(top, logits[k]);
    top = max_of_warp(top);
    for (int k = threadIdx.x; k < K; k += LANES) sum += expf(logits[k] - top);
    float log_of_sum = logf(sum_of_warp(sum));
    for (int k = threadIdx.x; k < K; k += LANES) {
        float q = wanted(classes, probabilities, soft, row, k, K, alpha);
        if (q != 0) loss -= q * (logits[k] - top - log_of_sum);  // a logit of -inf may be ruled out
    }
    loss = sum_of_warp(loss) / (ignores ? *counted : rows);
    if (ignores && classes[row] == ignore) loss = 0;
    if (threadIdx.x == 0) losses[row] = loss, log_sums[2 * row] = top,
                          log_sums[2 * row + 1] = log_of_sum;
}

/* dlogits = dloss (p Σq - q) / n; dloss is one number on the device. */
extern "C" __global__ void cross_entropy_backward(const float *dloss, const float *logits,
                                                  const long long *classes,
                                                  const float *probabilities, const float *counted,
                                                  const float *log_sums, float *dlogits, int rows,
                                                  int K, int soft, float alpha, int ignores,
                                                  long long ignore) {
    int row = blockIdx.x * WARPS + threadIdx.y;
    if (row >= rows) return;
    logits += (long long)row * K, dlogits += (long long)row * K;
    float share = *dloss / (ignores ? *counted : rows);
    bool ignored = ignores && classes[row] == ignore;
    float total = 1;
    if (soft) {
        float sum = 0;
        for (int k = threadIdx.x; k < K; k += LANES)
            sum += wanted(classes, probabilities, soft, row, k, K, alpha);
        sum = sum_of_warp(sum);
        if (fabsf(sum - 1) > K * 1.1920929e-7f) total = sum;  // 1 up to rounding counts as 1
    }
    for (int k = threadIdx.x; k < K; k += LANES) {
        float p = expf(logits[k] - log_sums[2 * row] - log_sums[2 * row + 1]);
        float q = wanted(classes, probabilities, soft, row, k, K, alpha);
        dlogits[k] = ignored ? 0 : share * (total * p - q);
    }
}
