"""Decoding an image list against a plain ImageFolder and DataLoader: `python benchmarks/decoding.py [--photos DIR]`.

Both decode the same JPEG files, cut random resized crops and flip them, with the same number of worker
processes, interleaved round by round; the ratio is the median over rounds. Without `--photos` the files
are crops of scikit-learn's two photographs, enlarged to the sizes that ImageNet's images have.
"""

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from csa_core.data.decode import ListedImages
from csa_core.data.listed import read_lists, with_workers
from csa_core.data.split import make_split
from csa_core.methods import METHODS, parse
from csa_core.methods.base import Setting
from csa_core.vision import torchvision


def main() -> None:
    """Measure and print images a second, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--photos", type=Path, help="folder of JPEGs by class (default: made from photographs)")
    parser.add_argument("--images", type=int, default=256, help="how many to make (default 256)")
    parser.add_argument("--longest", type=int, default=500, help="longer side of those, pixels (default 500)")
    parser.add_argument("--side", type=int, default=224, help="pixels a side that a crop is resized to")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = args.photos or make_photos(Path(folder) / "train", args.images, args.longest)
        files = sorted(root.glob("*/*"))
        lists = write_lists(root, files, Path(folder))
        times = measure(root, lists, args)
    plain, ours = (statistics.median(times[name]) for name in ("plain", "ours"))
    ratio = statistics.median(a / b for a, b in zip(times["plain"], times["ours"], strict=True))
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {platform.machine()}")
    print(f"{len(files)} JPEGs, crops of {args.side} px, {args.workers} workers, batches of {args.batch}")
    print(f"ImageFolder + DataLoader {len(files) / plain:.0f} images/s, image list {len(files) / ours:.0f} images/s")
    print(f"ratio {ratio:.2f}")


def make_photos(root: Path, count: int, longest: int) -> Path:
    """Write crops of two photographs as JPEGs of the quality and about the sizes of ImageNet."""
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for i in range(count):
        photo = photos[i % 2]
        width, height = rng.integers(300, 640), rng.integers(250, 427)
        left, top = rng.integers(0, 640 - width + 1), rng.integers(0, 427 - height + 1)
        crop = photo.crop((int(left), int(top), int(left + width), int(top + height)))
        scale = longest / max(crop.size)
        path = root / f"n{i % 2}" / f"{i}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.resize((round(crop.width * scale), round(crop.height * scale))).save(path, quality=92)
    return root


def write_lists(root: Path, files: list[Path], folder: Path) -> dict[str, str]:
    """Write a list of all images but the last of each class, to be timed, and one of those; return their keys."""
    last = {path.parent.name: path for path in files}
    parts: dict[str, list[str]] = {"train_list": [], "test_list": []}
    for path in files:
        line = f"{path.relative_to(root)} {list(last).index(path.parent.name)}\n"
        parts["test_list" if path == last[path.parent.name] else "train_list"].append(line)
    for name, lines in parts.items():
        (folder / f"{name}.txt").write_text("".join(lines))
    return {name: str(folder / f"{name}.txt") for name in parts}


def measure(root: Path, lists: dict[str, str], args: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of as many images as there are for each way, round by round."""
    data = {"source": "image_list", "root": str(root), **lists, "profile": "as_is", "image_size": args.side}
    config = parse({"data": data, "method": "ce", "model": "resnet10", "batch_size": args.batch}, "benchmark")
    dataset = with_workers(read_lists(config.data), args.workers)
    split = make_split(dataset, config.data)
    images = ListedImages(dataset, split, torch.device("cpu"), 0.0)
    method = METHODS[config.method](config, Setting(dataset, split, torch.device("cpu"), "float32"))
    v2 = torchvision.transforms.v2
    mean, std = dataset.mean_std
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(args.side),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean.tolist(), std.tolist()),
        ]
    )
    folder = torchvision.datasets.ImageFolder(str(root), transform)

    def plain(epoch: int) -> int:
        loader = torch.utils.data.DataLoader(folder, args.batch, shuffle=True, num_workers=args.workers)
        return sum(len(labels) for _, labels in loader)

    def ours(epoch: int) -> int:
        return sum(len(batch.streams["uniform"][1]) for batch in images.batches(method.plan(epoch)))

    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for epoch in range(args.rounds + 1):
        for name, way in (("plain", plain), ("ours", ours)):
            start = time.perf_counter()
            done = way(epoch)
            times[name].append((time.perf_counter() - start) * len(folder) / done)
    return {name: values[1:] for name, values in times.items()}


if __name__ == "__main__":
    main()
