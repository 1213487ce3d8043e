/* CUDA kernels of data.py: random numbers, and the augmentation of images, in whole numbers.

   What is drawn is what data/ and NumPy draw on the CPU, to the last bit. A block has 32 x 8
   threads. kernels.py defines LANES = 32, WARPS = 8, THREADS = 256 and WIDE for the compiler, and
   the names of streams and operations as they are numbered in data/. */

__device__ int thread_of_block() { return threadIdx.y * LANES + threadIdx.x; }

__device__ long long thread_of_grid() {
    return (long long)blockIdx.x * THREADS + thread_of_block();
}

/* Dropout. ---------------------------------------------------------------------------------------- */

/* key (6,) = two words of the key, four of the counter: data/draws.py. */
extern "C" __global__ void write_rng_key(unsigned long long *key, unsigned long long key0,
                                       unsigned long long key1, unsigned long long c0,
                                       unsigned long long c1, unsigned long long c2,
                                       unsigned long long c3) {
    if (thread_of_block()) return;
    key[0] = key0, key[1] = key1;
    key[2] = c0, key[3] = c1, key[4] = c2, key[5] = c3;
}

/* u (n,) = the next n float32 of a NumPy generator on Philox 4x64, `taken` words of 32 bits after
   a key, whose c0 is 0. A thread makes one block of four words of 64 bits, and eight numbers of
   it: its lower half first, a word is worth two. */
extern "C" __global__ void uniform(float *u, long long n, unsigned long long taken,
                                   const unsigned long long *key) {
    unsigned long long key0 = key[0], key1 = key[1];
    unsigned long long block = taken / 8 + thread_of_grid();
    unsigned long long w[4] = {block + 1, key[3], key[4], key[5]};  /* a generator counts before it makes */
    for (int round = 0; round < 10;
         round++, key0 += 0x9E3779B97F4A7C15ull, key1 += 0xBB67AE8584CAA73Bull) {
        unsigned long long left = 0xD2E7470EE14C6C93ull, right = 0xCA5A826395121157ull;
        unsigned long long high_left = __umul64hi(left, w[0]), low_left = left * w[0];
        unsigned long long high_right = __umul64hi(right, w[2]), low_right = right * w[2];
        w[0] = high_right ^ w[1] ^ key0, w[1] = low_right;
        w[2] = high_left ^ w[3] ^ key1, w[3] = low_left;
    }
    long long first = (long long)(block * 8 - taken);
    for (int k = 0; k < 8; k++) {
        unsigned word = (unsigned)(w[k / 2] >> k % 2 * 32);
        if (0 <= first + k && first + k < n) u[first + k] = (word >> 8) * (1.0f / (1 << 24));
    }
}

/* Augmentation: each image's fate is a function of (seed, epoch, index), in whole numbers. ------- */

struct Words { unsigned a, b, c, d; };

/* Philox 4x32, ten rounds: data/draws.py has the formula. */
__device__ Words draws(unsigned long long seed, unsigned stream, unsigned epoch, long long index) {
    Words w = {(unsigned)index, (unsigned)(index >> 32), epoch, stream};
    unsigned key0 = (unsigned)seed, key1 = (unsigned)(seed >> 32);
    for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
        unsigned long long left = 0xD2511F53ull * w.a, right = 0xCD9E8D57ull * w.c;
        w = {(unsigned)(right >> 32) ^ w.b ^ key0, (unsigned)right,
             (unsigned)(left >> 32) ^ w.d ^ key1, (unsigned)left};
    }
    return w;
}

/* words (4, n): four for each of index (n,). */
extern "C" __global__ void random_words(const long long *index, unsigned *words, long long n,
                                        unsigned long long seed, unsigned stream, unsigned epoch) {
    long long i = thread_of_grid();
    if (i >= n) return;
    Words w = draws(seed, stream, epoch, index[i]);
    words[i] = w.a, words[n + i] = w.b, words[2 * n + i] = w.c, words[3 * n + i] = w.d;
}

__device__ int integer(unsigned word, int n) {  /* in 0 .. n - 1 */
    return (unsigned long long)word * n >> 32;
}

__device__ int reflect(int i, int n) { return n - 1 - abs(n - 1 - abs(i)); }

/* batch (B, height, width, colours) = images[indices], each moved by up to `padding` pixels along
   both axes, and mirrored where `flips` and its coin of coin_epoch, turned over `turns` times, say
   so. Beyond its edge an image goes on in the mirror or, where `filled`, as `fill`. */
extern "C" __global__ void crop_and_flip(const unsigned char *images, const long long *indices,
                                         unsigned char *batch, int height, int width, int colours,
                                         int padding, int filled, int fill, int flips,
                                         unsigned long long seed, unsigned epoch,
                                         unsigned coin_epoch, unsigned turns) {
    long long index = indices[blockIdx.y];
    int size = height * width * colours;
    images += index * size;
    Words shift = draws(seed, CROP, epoch, index), coin = draws(seed, FLIP, coin_epoch, index);
    int down = integer(shift.a, 2 * padding + 1) - padding;
    int right = integer(shift.b, 2 * padding + 1) - padding;
    bool mirrored = flips && (coin.a + turns) % 2;
    batch += (long long)blockIdx.y * size;
    int start = blockIdx.x * WIDE, end = start + min(WIDE, size - start);
    for (int i = start + thread_of_block(); i < end; i += THREADS) {
        int colour = i % colours, place = i / colours;
        int y = place / width + down, x = place % width;
        x = (mirrored ? width - 1 - x : x) + right;
        int row = reflect(y, height), column = reflect(x, width);
        bool outside = row != y || column != x;
        batch[i] = filled && outside ? fill : images[(row * width + column) * colours + colour];
    }
}

/* AutoAugment: data/autoaugment.py has the operations. All threads of a block work on one image. - */

/* f(i) for each i below n that this thread has. */
template <class F>
__device__ void walk_image(int n, F f) {
    for (int i = thread_of_block(); i < n; i += THREADS) f(i);
}

__device__ int sum_of_block(int x) {  /* in every thread; once between two barriers */
    __shared__ int parts[THREADS];
    parts[thread_of_block()] = x;
    __syncthreads();
    int sum = 0;
    for (int part = 0; part < THREADS; part++) sum += parts[part];
    return sum;
}

/* Shear, translate, rotate: map is a, b, c, d, e, f. */
__device__ void move(const unsigned char *from, unsigned char *to, int height, int width,
                     int colours, const long long *map, int outside) {
    walk_image(height * width, [&](int i) {
        int x = i % width, y = i / width;
        long long column = (map[0] * x + map[1] * y + map[2]) >> 16;
        long long row = (map[3] * x + map[4] * y + map[5]) >> 16;
        bool inside = column >= 0 && column < width && row >= 0 && row < height;
        for (int c = 0; c < colours; c++)
            to[i * colours + c] = inside ? from[(row * width + column) * colours + c] : outside;
    });
}

/* What becomes of a level in a colour that has counts[k] pixels at level k. */
__device__ int new_level(int level, const int *counts, int pixels, int operation, int strength) {
    if (operation <= SOLARIZE) return level < strength ? level : 255 - level;
    if (operation == POSTERIZE) return level & strength;
    int lowest = 255, highest = 0, below = 0;
    for (int k = 0; k < 256; k++) {
        if (counts[k]) lowest = min(lowest, k), highest = k;
        if (k < level) below += counts[k];
    }
    if (operation == AUTOCONTRAST)
        return lowest < highest ? 255 * (level - lowest) / (highest - lowest) : level;
    int step = (pixels - counts[highest]) / 255;
    return step ? min(255, (below + step / 2) / step) : level;
}

/* Invert, solarize, posterize, autocontrast, equalize. There is a thread for each level. */
__device__ void relevel(const unsigned char *from, unsigned char *to, int pixels, int operation,
                        int strength) {
    __shared__ int counts[THREADS];
    __shared__ unsigned char table[THREADS];
    int level = thread_of_block();
    for (int colour = 0; colour < 3; colour++) {
        int count = 0;
        for (int i = 0; i < pixels; i++) count += from[3 * i + colour] == level;
        counts[level] = count;
        __syncthreads();
        table[level] = new_level(level, counts, pixels, operation, strength);
        __syncthreads();
        walk_image(pixels, [&](int i) { to[3 * i + colour] = table[from[3 * i + colour]]; });
    }
}

__device__ int luma(const unsigned char *pixel) {
    return (19595 * pixel[0] + 38470 * pixel[1] + 7471 * pixel[2] + 0x8000) >> 16;
}

/* The level of one colour in the smoothed image; at its edge, the image's own. */
__device__ int smoothed(const unsigned char *from, int height, int width, int y, int x,
                        int colour) {
    const unsigned char *middle = from + (y * width + x) * 3 + colour;
    if (y == 0 || y == height - 1 || x == 0 || x == width - 1) return *middle;
    int sum = 4 * *middle;
    for (int down = -1; down <= 1; down++)
        for (int right = -1; right <= 1; right++) sum += middle[(down * width + right) * 3];
    return (sum + 6) / 13;
}

/* Brightness, contrast, color, sharpness: tenths of the image, the rest of another one. */
__device__ void blend(const unsigned char *from, unsigned char *to, int height, int width,
                      int operation, int tenths) {
    int pixels = height * width, mean = 0;
    if (operation == CONTRAST) {
        walk_image(pixels, [&](int i) { mean += luma(from + 3 * i); });
        mean = (2 * sum_of_block(mean) + pixels) / (2 * pixels);
    }
    walk_image(pixels, [&](int i) {
        int other = operation == COLOR ? luma(from + 3 * i) : mean;
        for (int c = 0; c < 3; c++) {
            if (operation == SHARPNESS) other = smoothed(from, height, width, i / width, i % width, c);
            int level = tenths * from[3 * i + c] + (10 - tenths) * other;
            to[3 * i + c] = min(max(level, 0), 2550) / 10;
        }
    });
}

/* Both operations of each image of `batch` (B, height, width, colours), there and back again:
   `between` is of the same size. They come from one of `pairs` pairs in `policy` (pairs, 2, 3), and
   `maps` (5, 2 MOST + 1, 6) say where pixels move. A single colour is the classes of pixels, which
   move only. */
extern "C" __global__ void auto_augment(unsigned char *batch, unsigned char *between,
                                        const long long *indices, const long long *policy,
                                        const long long *maps, int pairs, int height, int width,
                                        int colours, int outside, unsigned long long seed,
                                        unsigned epoch) {
    long long image = (long long)blockIdx.x * height * width * colours;
    Words w = draws(seed, AUTO, epoch, indices[blockIdx.x]);
    policy += integer(w.a, pairs) * 6;
    for (int step = 0; step < 2; step++, policy += 3) {
        const unsigned char *from = (step ? between : batch) + image;
        unsigned char *to = (step ? batch : between) + image;
        int operation = policy[0], strength = policy[2];
        if (operation <= ROTATE && w.d >> step & 1) strength = -strength;
        if (integer(step ? w.c : w.b, 10) >= policy[1] || (colours == 1 && operation > ROTATE))
            operation = TRANSLATE_X, strength = 0;  /* all pixels stay where they are */
        if (operation <= ROTATE)
            move(from, to, height, width, colours,
                 maps + (operation * (2 * MOST + 1) + strength + MOST) * 6, outside);
        else if (operation <= EQUALIZE)
            relevel(from, to, height * width, operation, strength);
        else
            blend(from, to, height, width, operation, strength);
        __syncthreads();  /* what a thread reads next, others have written */
    }
}
