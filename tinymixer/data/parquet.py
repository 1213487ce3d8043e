"""Floor 1. Pictures and labels in a parquet file, as Hugging Face distributes data sets.

Each row has a picture, the bytes of a PNG file alone or beside a path, and one label or several.
"""

import io
from collections.abc import Iterator

from tinymixer.errors import DataError

PICTURES = ("img", "image")
MOST_FILE = 2**28  # bytes; the largest file of CIFAR has 120 MB
MOST_BYTES = 2**29  # of all columns that are read, unpacked
_BATCH = 256  # rows read at once
Row = tuple[bytes, list[int]]


def rows(content: bytes, labels: tuple[tuple[str, ...], ...]) -> tuple[int, Iterator[Row]]:
    """How many rows there are, and each as (bytes of the picture, its labels).

    labels: for each label wanted, the names that its column may have. Raises DataError if pyarrow
    is not installed, ValueError for other columns or sizes; a damaged file can raise anything.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            "a parquet file needs pyarrow, which is not installed: pip install 'tinymixer[data]'"
        ) from error
    file = pq.ParquetFile(io.BytesIO(content), thrift_string_size_limit=2**24)
    schema = file.schema_arrow
    names = [next((n for n in options if n in schema.names), None) for options in labels]
    picture = next((n for n in PICTURES if n in schema.names), None)
    if picture is None or None in names:
        wanted = [PICTURES, *labels]
        raise ValueError(
            f"its columns are {', '.join(schema.names[:9])}; expected "
            f"{', '.join(' or '.join(options) for options in wanted)}"
        )
    kind = schema.field(picture).type
    nested = pa.types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(len(kind))]
    if not (nested or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"its column {picture} is of type {str(kind)[:60]}; expected bytes")
    columns = [f"{picture}.bytes" if nested else picture, *names]
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > MOST_BYTES:
        raise ValueError(f"unpacks to more than {MOST_BYTES >> 20} MiB")

    def each() -> Iterator[Row]:
        for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
            pictures = batch.column(batch.schema.get_field_index(picture))
            pictures = pictures.field("bytes") if nested else pictures
            values = [batch.column(batch.schema.get_field_index(n)).to_pylist() for n in names]
            for i, numbers in enumerate(zip(*values, strict=True)):
                yield pictures[i].as_py(), list(numbers)

    return file.metadata.num_rows, each()
