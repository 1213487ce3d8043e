"""Drawings that follow one another, as an SVG that a notebook, nbconvert and a book can show."""

from collections.abc import Sequence

HOLD = 3.0  # seconds for which the last drawing stays


class Animation:
    """Drawings one after another, again and again; a notebook shows it as an image.

    drawings: what is inside an SVG of `size` (width, height), for each moment; they are shown over
    `backdrop`, each for `seconds`, the last one for HOLD. `style` is CSS for what they contain.

    It begins with the last drawing, and that is the one that stays in print, where no animation is
    played, and for readers who have asked for less motion.
    """

    def __init__(
        self,
        drawings: Sequence[str],
        size: tuple[float, float],
        seconds: float = 0.5,
        backdrop: str = "",
        style: str = "",
    ) -> None:
        self.drawings, self.size, self.seconds = drawings, size, seconds
        self.backdrop, self.style = backdrop, style

    def __repr__(self) -> str:
        return f"<Animation of {len(self.drawings)}, {self.size[0]:g}x{self.size[1]:g}>"

    def _repr_svg_(self) -> str:
        *before, last = self.drawings
        width, height = self.size
        total = HOLD + self.seconds * len(before)
        name = f"film{len(before)}-{1000 * self.seconds:.0f}"  # one page may hold several
        frames = [f'<g style="animation-delay: {-total}s">{last}</g>']
        for i, drawing in enumerate(before):
            start = HOLD + i * self.seconds - total
            frames.append(f'<g opacity="0" style="animation-delay: {start:.2f}s">{drawing}</g>')
        share, held = 100 * self.seconds / total, 100 * HOLD / total
        moving = f"""
.{name} > g {{ animation: {name} {total:.2f}s step-end infinite }}
.{name} > g:first-of-type {{ animation-name: {name}-last }}
@keyframes {name} {{ 0% {{ opacity: 1 }} {share:.3f}% {{ opacity: 0 }} }}
@keyframes {name}-last {{ 0% {{ opacity: 1 }} {held:.3f}% {{ opacity: 0 }} }}
@media print {{ .{name} > g {{ animation: none !important }} }}
@media (prefers-reduced-motion: reduce) {{ .{name} > g {{ animation: none !important }} }}"""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}"><style>{self.style}{moving if before else ""}</style>'
            f'<rect width="{width:g}" height="{height:g}" fill="white"/>{self.backdrop}'
            f'<g class="{name}">{"".join(frames)}</g></svg>'
        )
