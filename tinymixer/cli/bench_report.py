"""The figures of `tinymixer bench`, in words."""

import platform
from typing import Any

from tinymixer.errors import counted
from tinymixer.fast.gpu.graphs import host_copies
from tinymixer.processors import processors


def report(found: dict[str, Any]) -> str:
    """What `tinymixer bench` prints of the figures it found."""
    what = "inference" if found["what"] == "infer" else "training"
    peak = found["peak_rss_mib"]
    lines = [
        "{model}, {params:,} parameters, {gelu}-GELU, {precision}".format(**found)
        + (", without twins" if found["reference"] else ""),
        f"{what} step, {counted(found['batch'], 'image')} in micro-batches of "
        f"{found['micro_batch']}, {counted(found['threads'], 'thread')}"
        + (f" of {found['processes']} processes" if found["processes"] > 1 else ""),
        "result           agrees with the plain operations on a single tape",
        "speed            {images_s:,.1f} images/s, {gflop_s:,.1f} GFLOP/s".format(**found),
        "time             {median_ms:.1f} ms, median of ".format(**found)
        + counted(found["timed_steps"], "step")
        + " ({min_ms:.1f} to {max_ms:.1f})".format(**found),
        "processor time   {cpu_s_per_step:.3f} s a step".format(**found),
        f"peak memory      {'not known on this system' if peak is None else f'{peak:,.0f} MiB'}",
        "loss             "
        + ", ".join(f"{loss:.4f} in step {step + 1}" for step, loss in found["loss"].items()),
    ]
    if found["processes"] > 1:
        lines.append(
            f"processes        {found['share_of_ranks']:.1%} of the time is for what crosses "
            "between them, waiting for each other included"
        )
    if "products_ms" in found:
        lines.append(
            "products alone   {products_ms:.1f} ms, {products_gflop_s:,.1f} GFLOP/s, "
            "{products_cpu_s:.3f} s of processor time; the step reaches {share_of_products:.1%} of "
            "that speed".format(**found)
        )
    if "peak_gflop_s" in found:
        lines.append(
            "this GPU         {peak_gflop_s:,.0f} GFLOP/s in a large product, of which the step "
            "reaches {share_of_peak:.1%}; {copy_gb_s:,.0f} GB/s in a copy".format(**found)
        )
    if "share_of_copy" in found:
        lines.append(
            "memory traffic   {share_of_copy:.1%} of that, if only what the tape keeps and AdamW's "
            "arrays moved".format(**found)
        )
    if "own_launches" in found:
        lines.append(
            "launches         {own_launches:,} a step of kernels of our own, {products:,} of "
            "products; CuPy's, such as sums of two arrays, are not counted".format(**found)
        )
    if "graph" in found:
        lines.append(f"graph            {_graph(found['graph'])}")
    lines.append(
        f"here             tinymixer {found['tinymixer']}, NumPy {found['numpy']}, Python "
        f"{platform.python_version()}, {platform.machine()}, {counted(processors(), 'processor')}"
    )
    return "\n".join(lines)


def _graph(found: str | list[dict[str, int]]) -> str:
    """Why there is none; or the nodes of each graph, by kind."""
    if isinstance(found, str):
        return f"none, launch by launch instead: {found}"
    graphs = [
        f"{counted(sum(kinds.values()), 'node')} ("
        + ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        + f"), {counted(host_copies(kinds), 'copy')} between host and device"
        for kinds in found
    ]
    return "; ".join(graphs) or "none yet, which takes two steps"
