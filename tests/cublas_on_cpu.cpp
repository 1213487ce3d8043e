// The six functions of cuBLAS that tinymixer calls, on host memory, by their documentation.
//
// Matrices lie column after column. Checks are those of cuBLAS, and stricter: a product is refused
// unless the stream was set and then, as setting it forgets it, the workspace. Sums are float32.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, FAILED = 13, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, COMPUTE_TF32 = 77, NO_OP = 0, TRANSPOSE = 1 };
enum { WHOLE_SUMS = 16 };

struct Handle {
    void* stream = nullptr;
    char* workspace = nullptr;
    size_t size = 0;
    int math = 0;
};

// What a stream records instead of computing it, and who is told of it.
static void* recording_stream = nullptr;
static void (*note)(int) = nullptr;
static std::vector<std::function<void()>> recorded;

static float from_bits(uint32_t bits) { float x; std::memcpy(&x, &bits, 4); return x; }
static uint32_t to_bits(float x) { uint32_t bits; std::memcpy(&bits, &x, 4); return bits; }

static float load(const void* at, size_t i, int type, int compute) {
    if (type == R_16BF) return from_bits(uint32_t(static_cast<const uint16_t*>(at)[i]) << 16);
    float x = static_cast<const float*>(at)[i];
    if (compute != COMPUTE_TF32 || !std::isfinite(x)) return x;
    return from_bits((to_bits(x) + 0x1000) & 0xFFFFE000);  // 10 bits of mantissa
}

static void store(void* at, size_t i, int type, float x) {
    if (type == R_32F) { static_cast<float*>(at)[i] = x; return; }
    uint32_t bits = to_bits(x);
    bits = std::isnan(x) ? bits | 0x400000 : bits + 0x7FFF + (bits >> 16 & 1);  // ties to even
    static_cast<uint16_t*>(at)[i] = uint16_t(bits >> 16);
}

extern "C" {

void record(void* stream, void (*told)(int)) { recording_stream = stream; note = told; }
void run_recorded(int i) { recorded[i](); }

const char* cublasGetStatusName(int status) {
    switch (status) {
        case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
        default: return "unknown";
    }
}

int cublasCreate_v2(Handle** handle) {
    if (!handle) return INVALID_VALUE;
    *handle = new Handle;
    return SUCCESS;
}

int cublasSetStream_v2(Handle* h, void* stream) {
    if (!h) return NOT_INITIALIZED;
    *h = Handle{stream, nullptr, 0, h->math};
    return SUCCESS;
}

int cublasSetMathMode(Handle* h, int mode) {
    if (!h) return NOT_INITIALIZED;
    if (mode != 0 && mode != WHOLE_SUMS) return INVALID_VALUE;
    h->math = mode;
    return SUCCESS;
}

int cublasSetWorkspace_v2(Handle* h, void* workspace, size_t size) {
    if (!h) return NOT_INITIALIZED;
    if (reinterpret_cast<uintptr_t>(workspace) % 256) return INVALID_VALUE;
    h->workspace = static_cast<char*>(workspace);
    h->size = size;
    return SUCCESS;
}

int cublasGemmEx(Handle* h, int op_a, int op_b, int m, int n, int k, const void* alpha,
                 const void* A, int type_a, int lda, const void* B, int type_b, int ldb,
                 const void* beta, void* C, int type_c, int ldc, int compute, int algorithm) {
    if (!h) return NOT_INITIALIZED;
    if (!h->workspace || h->size < 1024) return NOT_INITIALIZED;
    for (int op : {op_a, op_b}) if (op != NO_OP && op != TRANSPOSE) return INVALID_VALUE;
    if (m < 0 || n < 0 || k < 0 || !alpha || !beta || !A || !B || !C) return INVALID_VALUE;
    if (lda < std::max(1, op_a == NO_OP ? m : k)) return INVALID_VALUE;
    if (ldb < std::max(1, op_b == NO_OP ? k : n)) return INVALID_VALUE;
    if (ldc < std::max(1, m)) return INVALID_VALUE;
    for (int type : {type_a, type_b, type_c})
        if (type != R_32F && type != R_16BF) return NOT_SUPPORTED;
    if (type_a != type_b || (type_a == R_32F && type_c != R_32F)) return NOT_SUPPORTED;
    if (compute != COMPUTE_32F && (compute != COMPUTE_TF32 || type_a != R_32F)) return NOT_SUPPORTED;
    if (algorithm != -1) return NOT_SUPPORTED;
    if (note && h->stream != recording_stream) return FAILED;  // while another stream records

    float times = *static_cast<const float*>(alpha), plus = *static_cast<const float*>(beta);
    bool in_parts = h->math != WHOLE_SUMS && type_c == R_16BF;  // which it may do, in bfloat16
    char *workspace = h->workspace, *end = workspace + h->size;
    auto multiply = [=] {
        std::memset(workspace, 0xFF, 512);  // it is ours, from its first byte to its last
        std::memset(end - 512, 0xFF, 512);
        for (size_t j = 0; j < size_t(n); j++)
            for (size_t i = 0; i < size_t(m); i++) {
                float sum = 0;
                for (size_t l = 0; l < size_t(k); l++) {
                    if (in_parts) {
                        uint16_t part;
                        store(&part, 0, R_16BF, sum);
                        sum = load(&part, 0, R_16BF, COMPUTE_32F);
                    }
                    sum += load(A, op_a == NO_OP ? i + l * lda : l + i * lda, type_a, compute)
                         * load(B, op_b == NO_OP ? l + j * ldb : j + l * ldb, type_b, compute);
                }
                float before = plus == 0 ? 0 : plus * load(C, i + j * ldc, type_c, COMPUTE_32F);
                store(C, i + j * ldc, type_c, times * sum + before);
            }
    };
    if (!note) {
        multiply();
        return SUCCESS;
    }
    recorded.push_back(multiply);
    note(int(recorded.size()) - 1);
    return SUCCESS;
}

}  // extern "C"
