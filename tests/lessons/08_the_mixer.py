"""Typical wrong answers to the exercises of lesson 08, each with what the check must say to it."""

from notebooks import wrong


def no_slope(dY, X, W1, a, W2, g_slope):
    da = dY @ W2.T
    return da @ W1.T, X.T @ da, da.sum(0), a.T @ dY, dY.sum(0)


def sums_forgotten(dY, X, W1, a, W2, g_slope):
    dh = dY @ W2.T * g_slope
    return dh @ W1.T, X.T @ dh, dh, a.T @ dY, dY


def means(dY, X, W1, a, W2, g_slope):
    dh = dY @ W2.T * g_slope
    return dh @ W1.T, X.T @ dh, dh.sum(0), a.T @ dY, dY.mean(0)


def like_tokens(dY, X, W1, a, W2, g_slope):
    dh = dY @ W2.T * g_slope
    return dh @ W1.T, dh.T @ X, dh.sum(0), dY.T @ a, dY.sum(0)


def token_and_channel_swapped(layer, s, b, c, t, i, k):
    if layer == "token MLP":
        return b == i and s == t
    if layer == "the whole block":
        return b == i
    return b == i and c == k


def images_forgotten(layer, s, b, c, t, i, k):
    if layer == "token MLP":
        return c == k
    return s == t or layer == "the whole block"


def one_way_through_the_block(layer, s, b, c, t, i, k):
    if layer == "token MLP":
        return b == i and c == k
    if layer == "the whole block":
        return b == i and (c == k or s == t)
    return b == i and s == t


def branch(gradient, norm, mlp):
    return norm.backward(mlp.backward(gradient)[0])[0]


def no_way_around(dy, token_norm, token_mlp, channel_norm, channel_mlp):
    return branch(branch(dy, channel_norm, channel_mlp), token_norm, token_mlp)


def from_dy_again(dy, token_norm, token_mlp, channel_norm, channel_mlp):
    du = dy + branch(dy, channel_norm, channel_mlp)
    return dy + branch(du, token_norm, token_mlp)


def du_forgotten(dy, token_norm, token_mlp, channel_norm, channel_mlp):
    return branch(dy + branch(dy, channel_norm, channel_mlp), token_norm, token_mlp)


def in_order_of_the_forward(dy, token_norm, token_mlp, channel_norm, channel_mlp):
    du = dy + branch(dy, token_norm, token_mlp)
    return du + branch(du, channel_norm, channel_mlp)


def norms_forgotten(dy, token_norm, token_mlp, channel_norm, channel_mlp):
    du = dy + channel_mlp.backward(dy)[0]
    return du + token_mlp.backward(du)[0]


def count(S, P, C, L, D_S, D_C, K):
    return S * 3 * P * P * C + L * 2 * S * C * (D_S + D_C) + C * K


def like_parameters(S, P, C, L, D_S, D_C, K):
    return S * 3 * P * P * C + L * 2 * (S * D_S + C * D_C) + C * K


def head_on_every_token(S, P, C, L, D_S, D_C, K):
    return S * 3 * P * P * C + L * 2 * S * C * (D_S + D_C) + S * C * K


def one_matrix(S, P, C, L, D_S, D_C, K):
    return S * 3 * P * P * C + L * S * C * (D_S + D_C) + C * K


def repeated_over_their_own_axis(S, P, C, L, D_S, D_C, K):
    return S * 3 * P * P * C + L * 2 * (S * S * D_S + C * C * D_C) + C * K


WRONG = [
    wrong("channel", "GELU is missing", channel_backward=no_slope),
    wrong("channel", "db1 looks like the sum over the rows", channel_backward=sums_forgotten),
    wrong("channel", "db2 looks like it is a mean", channel_backward=means),
    wrong("channel", "dW1 looks like it is transposed", channel_backward=like_tokens),
    wrong("reach", "token and channel have changed places", depends=token_and_channel_swapped),
    wrong("reach", "the image was forgotten", depends=images_forgotten),
    wrong("reach", "only one way was followed", depends=one_way_through_the_block),
    wrong("walk", "both skip connections are missing", block_backward=no_way_around),
    wrong("walk", "dx starts from dy", block_backward=from_dy_again),
    wrong("walk", "around the token MLP is missing", block_backward=du_forgotten),
    wrong("walk", "the order of the forward", block_backward=in_order_of_the_forward),
    wrong("walk", "the norms are missing", block_backward=norms_forgotten),
    wrong("products", "these are parameters, not products", products=like_parameters),
    wrong("products", "it comes after the mean", products=head_on_every_token),
    wrong("products", "yours has one", products=one_matrix),
    wrong("products", "over its own axis", products=repeated_over_their_own_axis),
    wrong(
        "products",
        "the head is missing",
        products=lambda S, P, C, L, D_S, D_C, K: count(S, P, C, L, D_S, D_C, 0),
    ),
]
