"""Typical wrong answers to the exercises of lesson 00, each with what the check must say to it."""

from notebooks import wrong


def cut_the_memory(image, P):
    return image.reshape(-1, P * P * 3)


def down_the_columns(image, P):
    H, W = image.shape[0] // P, image.shape[1] // P
    return image.reshape(H, P, W, P, 3).transpose(2, 0, 1, 3, 4).reshape(H * W, -1)


def colours_apart(image, P):
    H, W = image.shape[0] // P, image.shape[1] // P
    return image.reshape(H, P, W, P, 3).transpose(0, 2, 4, 1, 3).reshape(H * W, -1)


def a_grid_of_patches(image, P):
    H, W = image.shape[0] // P, image.shape[1] // P
    return image.reshape(H, P, W, P, 3).transpose(0, 2, 1, 3, 4).reshape(H, W, -1)


def no_residual(x, token_norm, token_mlp, channel_norm, channel_mlp):
    return channel_mlp(channel_norm(token_mlp(token_norm(x))))


def from_x_again(x, token_norm, token_mlp, channel_norm, channel_mlp):
    return x + channel_mlp(channel_norm(x))


def u_forgotten(x, token_norm, token_mlp, channel_norm, channel_mlp):
    return channel_mlp(channel_norm(x + token_mlp(token_norm(x))))


def norms_behind(x, token_norm, token_mlp, channel_norm, channel_mlp):
    u = x + token_norm(token_mlp(x))
    return u + channel_norm(channel_mlp(u))


def one_norm(x, token_norm, token_mlp, channel_norm, channel_mlp):
    u = x + token_mlp(token_norm(x))
    return u + channel_mlp(token_norm(u))


def means(x, token_norm, token_mlp, channel_norm, channel_mlp):
    return channel_mlp(channel_norm(x + token_mlp(token_norm(x)))).mean(0)


WRONG = [
    wrong("tokens", "cut the memory", tokens_of=cut_the_memory),
    wrong("tokens", "down the columns", tokens_of=down_the_columns),
    wrong("tokens", "three colours are apart", tokens_of=colours_apart),
    wrong("tokens", "yours is (2, 3, 48)", tokens_of=a_grid_of_patches),
    wrong("block", "both skip connections are missing", mixer_block=no_residual),
    wrong("block", "starts from x again", mixer_block=from_x_again),
    wrong("block", "second skip connection is missing", mixer_block=u_forgotten),
    wrong("block", "belong in front", mixer_block=norms_behind),
    wrong("block", "the second has its own", mixer_block=one_norm),
    wrong("block", "keeps the shape", mixer_block=means),
    wrong(
        "count",
        "the biases are missing",
        block_parameters=lambda S, C, D_S, D_C: 2 * S * D_S + 2 * C * D_C + 4 * C,
    ),
    wrong(
        "count",
        "two LayerNorms are missing",
        block_parameters=lambda S, C, D_S, D_C: 2 * S * D_S + D_S + S + 2 * C * D_C + D_C + C,
    ),
    wrong(
        "count",
        "changed places",
        block_parameters=lambda S, C, D_S, D_C: (
            2 * C * D_S + D_S + S + 2 * S * D_C + D_C + C + 4 * C
        ),
    ),
]
