"""Typical wrong answers to the exercises of lesson 02, each with what the check must say to it."""

import numpy as np
from notebooks import wrong

from tinymixer.engine import Function, tensors_below


def walker(collect):
    """A walk in which `collect(gradients, x, dx)` takes each share."""

    def walk(loss):
        gradients = {loss: np.ones(loss.shape)}
        for y in reversed(tensors_below(loss)):
            shares = y.creator.backward(gradients[y])
            for x, dx in zip(y.creator.inputs, shares, strict=True):
                collect(gradients, x, dx)
        return gradients

    return walk


def overwrite(gradients, x, dx):
    gradients[x] = dx


def keep_the_first(gradients, x, dx):
    gradients.setdefault(x, dx)


def add_to_nothing(gradients, x, dx):
    gradients[x] += dx


def in_place(gradients, x, dx):
    if x in gradients:
        gradients[x] += dx
    else:
        gradients[x] = dx


def twice(gradients, x, dx):
    gradients[x] = gradients.get(x, dx) + dx


def in_parts(before=True, each=False, divide=True):
    def gradient_in_parts(parts, w):
        if before:
            w.grad = None
        for part in parts:
            if each:
                w.grad = None
            y = part @ w
            (y * y).mean().backward()
        return w.grad / len(parts) if divide else w.grad

    return gradient_in_parts


class Right(Function):
    def forward(self, x):
        y = 1 / (1 + np.exp(-x))
        self.saved = (y,)
        return y

    def backward(self, dy):
        (y,) = self.saved
        return dy * y * (1 - y)


class NothingSaved(Right):
    def forward(self, x):
        return 1 / (1 + np.exp(-x))


class NotATuple(Right):
    def forward(self, x):
        self.saved = super().forward(x)
        return self.saved


class NoMinus(Right):
    def forward(self, x):
        return super().forward(-x)


class NoDy(Right):
    def backward(self, dy):
        return super().backward(1.0)


class OfX(Right):
    def forward(self, x):
        y = super().forward(x)
        self.saved = (x,)
        return y


class WrongSign(Right):
    def backward(self, dy):
        return -super().backward(dy)


WRONG = [
    wrong("hand", "only its use in the last product", gradients={"w": 7, "x": 9, "b": 3}),
    wrong("hand", "only its use in h", gradients={"w": 6, "x": 9, "b": 3}),
    wrong("hand", "dx = dh * w", gradients={"w": 13, "x": 3, "b": 3}),
    wrong("hand", "passes dh on", gradients={"w": 13, "x": 9, "b": 1}),
    wrong("hand", "begin at the end", gradients={"w": 1, "x": 9, "b": 3}),
    wrong("walk", "overwrites", walk=walker(overwrite)),
    wrong("walk", "only the first share", walk=walker(keep_the_first)),
    wrong("walk", "not there yet", walk=walker(add_to_nothing)),
    wrong("walk", "+= on an array", walk=walker(in_place)),
    wrong("walk", "counted twice", walk=walker(twice)),
    wrong("parts", "4 times too large", gradient_in_parts=in_parts(divide=False)),
    wrong("parts", "was not removed", gradient_in_parts=in_parts(before=False)),
    wrong("parts", "two things", gradient_in_parts=in_parts(before=False, divide=False)),
    wrong("parts", "only the last part", gradient_in_parts=in_parts(each=True)),
    wrong("sigmoid", "did not save", Sigmoid=NothingSaved),
    wrong("sigmoid", "not a tuple", Sigmoid=NotATuple),
    wrong("sigmoid", "the minus in exp(-x)", Sigmoid=NoMinus),
    wrong("sigmoid", "dy is missing", Sigmoid=NoDy),
    wrong("sigmoid", "x took the place of y", Sigmoid=OfX),
    wrong("sigmoid", "the sign", Sigmoid=WrongSign),
]
