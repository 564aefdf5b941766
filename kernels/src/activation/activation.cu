// Activations of the MLP, plain and gated. The formulas are in mod.rs; a function is an `Activation`, as its number there.
#include "common.cuh"

struct At {
    float value, slope;
};

// sigma(z) and 1 - sigma(z), where nothing cancels
struct Logistic {
    float p, rest;
};

DEVICE Logistic logistic(float z) {
    const float e = expf(-fabsf(z)), large = 1.f / (1.f + e), small = e * large;
    // a NaN goes into both
    return z < 0.f ? Logistic{small, large} : Logistic{large, small};
}

enum Function { GELU_TANH, GELU_ERF, SILU, RELU };

// Beyond `limit` the function is x or 0 to the last digit; what is computed from x is cut there, as x^2 may be infinite.
template <int FUNCTION>
DEVICE At at(float x) {
    if (FUNCTION == RELU) return {x < 0.f ? 0.f : x, x > 0.f ? 1.f : 0.f};
    const float limit = FUNCTION == GELU_TANH ? 9.9f : FUNCTION == GELU_ERF ? 13.f : 87.f;
    x = x < -limit ? -limit : x;
    const float cut = x > limit ? limit : x;
    if (FUNCTION == GELU_TANH) {
        const float linear = 1.5957692f, cubed = 0.044715f * linear, square = cut * cut;
        const Logistic s = logistic(cut * fmaf(cubed, square, linear));
        return {x * s.p, fmaf(cut * s.p, s.rest * fmaf(3.f * cubed, square, linear), s.p)};
    }
    if (FUNCTION == GELU_ERF) {
        const float cdf = 0.5f * erfcf(-0.70710678f * cut), density = 0.39894228f * expf(-0.5f * cut * cut);
        return {x * cdf, fmaf(cut, density, cdf)};
    }
    const Logistic s = logistic(cut);
    return {x * s.p, fmaf(cut * s.p, s.rest, s.p)};
}

// the function is chosen outside of the loop over numbers
template <class F>
DEVICE void with_function(u32 function, const F& f) {
    switch (function) {
        case GELU_TANH: f([](float x) { return at<GELU_TANH>(x); }); break;
        case GELU_ERF: f([](float x) { return at<GELU_ERF>(x); }); break;
        case SILU: f([](float x) { return at<SILU>(x); }); break;
        default: f([](float x) { return at<RELU>(x); });
    }
}

template <int W>
DEVICE void activation_forward(u32 function, const float* x, float* y, u32 n) {
    with_function(function, [=](auto act) {
        map<W, false, 1, 1>([=](float (&in)[1], float (&out)[1]) { out[0] = act(in[0]).value; }, {x}, {y}, n);
    });
}
KERNEL_WIDTHS(activation_forward, (u32 function, const float* x, float* y, u32 n), (function, x, y, n))

template <int W>
DEVICE void activation_backward(u32 function, const float* x, const float* d_y, float* d_x, u32 n) {
    with_function(function, [=](auto act) {
        map<W, false, 2, 1>([=](float (&in)[2], float (&out)[1]) { out[0] = in[1] * act(in[0]).slope; }, {x, d_y}, {d_x}, n);
    });
}
KERNEL_WIDTHS(activation_backward, (u32 function, const float* x, const float* d_y, float* d_x, u32 n),
              (function, x, d_y, d_x, n))

template <int W>
DEVICE void gated_forward(u32 function, const float* gate, const float* up, float* y, u32 n) {
    with_function(function, [=](auto act) {
        map<W, false, 2, 1>([=](float (&in)[2], float (&out)[1]) { out[0] = act(in[0]).value * in[1]; }, {gate, up}, {y}, n);
    });
}
KERNEL_WIDTHS(gated_forward, (u32 function, const float* gate, const float* up, float* y, u32 n), (function, gate, up, y, n))

template <int W>
DEVICE void gated_backward(u32 function, const float* gate, const float* up, const float* d_y, float* d_gate, float* d_up,
                           u32 n) {
    with_function(function, [=](auto act) {
        auto both = [=](float (&in)[3], float (&out)[2]) {
            const At a = act(in[0]);
            out[0] = in[2] * in[1] * a.slope;
            out[1] = in[2] * a.value;
        };
        map<W, false, 3, 2>(both, {gate, up, d_y}, {d_gate, d_up}, n);
    });
}
KERNEL_WIDTHS(gated_backward,
              (u32 function, const float* gate, const float* up, const float* d_y, float* d_gate, float* d_up, u32 n),
              (function, gate, up, d_y, d_gate, d_up, n))
