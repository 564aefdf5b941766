// One step of each optimizer. Every operation is rounded and none is fused, so a step has the bits of the CPU's.
#include "common.cuh"

// The scalars come from the CPU in full: what depends on the step is computed there in f64.
template <int W>
DEVICE void adamw(float keep, float beta1, float beta2, float step_size, float root_correction2, float eps, const float* grad,
                  float* param, float* m, float* v, u32 n) {
    auto step = [=](float (&in)[1], float (&out)[3]) {
        const float g = in[0];
        const float m = __fadd_rn(out[1], __fmul_rn(__fsub_rn(g, out[1]), __fsub_rn(1.f, beta1)));
        const float v = __fadd_rn(__fmul_rn(out[2], beta2), __fmul_rn(__fmul_rn(g, __fsub_rn(1.f, beta2)), g));
        const float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), root_correction2), eps);
        out[0] = __fsub_rn(__fmul_rn(out[0], keep), __fdiv_rn(__fmul_rn(m, step_size), root));
        out[1] = m;
        out[2] = v;
    };
    map<W, true, 1, 3>(step, {grad}, {param, m, v}, n);
}
KERNEL_WIDTHS(adamw,
              (float keep, float beta1, float beta2, float step_size, float root_correction2, float eps, const float* grad,
               float* param, float* m, float* v, u32 n),
              (keep, beta1, beta2, step_size, root_correction2, eps, grad, param, m, v, n))

template <int W>
DEVICE void sgd(float lr, float weight_decay, const float* grad, float* param, u32 n) {
    auto step = [=](float (&in)[1], float (&out)[1]) {
        const float direction = __fadd_rn(in[0], __fmul_rn(out[0], weight_decay));
        out[0] = __fsub_rn(out[0], __fmul_rn(direction, lr));
    };
    map<W, true, 1, 1>(step, {grad}, {param}, n);
}
KERNEL_WIDTHS(sgd, (float lr, float weight_decay, const float* grad, float* param, u32 n), (lr, weight_decay, grad, param, n))

template <int W>
DEVICE void sgd_momentum(float lr, float momentum, float weight_decay, const float* grad, float* param, float* velocity, u32 n) {
    auto step = [=](float (&in)[1], float (&out)[2]) {
        const float direction = __fadd_rn(in[0], __fmul_rn(out[0], weight_decay));
        out[1] = __fadd_rn(__fmul_rn(out[1], momentum), direction);
        out[0] = __fsub_rn(out[0], __fmul_rn(out[1], lr));
    };
    map<W, true, 1, 2>(step, {grad}, {param, velocity}, n);
}
KERNEL_WIDTHS(sgd_momentum,
              (float lr, float momentum, float weight_decay, const float* grad, float* param, float* velocity, u32 n),
              (lr, momentum, weight_decay, grad, param, velocity, n))
