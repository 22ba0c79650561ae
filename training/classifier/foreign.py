"""Pictures that are no colour photograph of a retina: photographs from packages, drawn shapes, pages, scans, masks.

Each kind makes as many as are asked for, all from one seed. They teach `quality` what not to read, and measure it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Rng = np.random.Generator
SIDE: Final = 640  # px
_ORANGE: Final = (190, 90, 40)


@cache
def photographs() -> tuple[Pixels, ...]:
    """Colour photographs of scikit-image and scikit-learn, uint8 (H, W, 3), none of them a retina."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    folder = Path(skimage.data.__file__).parent
    named = ("astronaut", "chelsea", "coffee", "ihc", "motorcycle_left", "hubble_deep_field", "rocket", "color", "logo")
    files = [next(folder.glob(f"{name}.*")) for name in named]
    read = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in files]
    return (*(np.asarray(own[..., ::-1], np.uint8) for own in read if own is not None), *load_sample_images().images)


@cache
def greys() -> tuple[Pixels, ...]:
    """Textures, pages, coins, a moon of scikit-image, grey, uint8 (H, W)."""
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    named = ("brick", "camera", "cell", "coins", "grass", "gravel", "horse", "moon", "page", "text", "clock_motion")
    read = [cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_GRAYSCALE) for name in named]
    return tuple(np.asarray(own, np.uint8) for own in read if own is not None)


def _part(picture: Pixels, rng: Rng) -> Pixels:
    """A square part of it, turned and mirrored at random."""
    height, width = picture.shape[:2]
    side = int(min(height, width) * rng.uniform(0.4, 1))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    part = np.rot90(picture[top : top + side, left : left + side], int(rng.integers(4)))
    part = part[:, ::-1] if rng.random() < 0.5 else part
    return np.asarray(cv2.resize(np.ascontiguousarray(part), (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _round(picture: Pixels, rng: Rng) -> Pixels:
    """The picture in a round field of view."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(mask, (SIDE // 2, SIDE // 2), int(SIDE * rng.uniform(0.42, 0.52)), 1, -1)
    return np.asarray(picture * mask[..., None], np.uint8)


def _tinted(grey: Pixels, rng: Rng) -> Pixels:
    """A grey picture in the colours of a retina."""
    colour = np.array(_ORANGE) * rng.uniform(0.7, 1.3, 3)
    return np.asarray(np.clip(grey[..., None] / 128 * colour, 0, 255), np.uint8)


def _shade(rng: Rng) -> tuple[int, int, int]:
    """A colour: of a retina in one of two, else any."""
    colour = np.array(_ORANGE) * rng.uniform(0.5, 1.3, 3) if rng.random() < 0.5 else rng.integers(0, 256, 3)
    red, green, blue = (int(v) for v in np.clip(colour, 0, 255))
    return red, green, blue


def photograph(rng: Rng) -> Pixels:
    """A part of a colour photograph, in one of three in a round field."""
    chosen = photographs()
    part = _part(chosen[int(rng.integers(len(chosen)))], rng)
    return _round(part, rng) if rng.random() < 1 / 3 else part


def texture(rng: Rng) -> Pixels:
    """A part of a grey picture, as it is or in a retina's colours, in one of two in a round field."""
    chosen = greys()
    part = _part(chosen[int(rng.integers(len(chosen)))], rng)
    made = _tinted(part, rng) if rng.random() < 0.5 else np.repeat(part[..., None], 3, axis=2)
    return _round(made, rng) if rng.random() < 0.5 else made


def shapes(rng: Rng) -> Pixels:
    """A few flat shapes."""
    made = np.full((SIDE, SIDE, 3), _shade(rng), np.uint8)
    for _ in range(int(rng.integers(1, 9))):
        x, y, size = (int(v) for v in rng.integers(40, SIDE - 40, 3))
        match int(rng.integers(4)):
            case 0:
                cv2.circle(made, (x, y), size // 3, _shade(rng), -1)
            case 1:
                cv2.rectangle(made, (x, y), (x + size // 2, y + size // 3), _shade(rng), -1)
            case 2:
                cv2.ellipse(made, (x, y), (size // 2, size // 4), float(rng.uniform(0, 180)), 0, 360, _shade(rng), -1)
            case _:
                corners = rng.integers(0, SIDE, (int(rng.integers(3, 7)), 2)).astype(np.int32)
                cv2.fillPoly(made, [corners], _shade(rng))
    return _round(made, rng) if rng.random() < 0.3 else made


def ball(rng: Rng) -> Pixels:
    """An evenly lit disc on black with a bright spot or a few, soft or sharp: what is round like a field of view."""
    made = np.zeros((SIDE, SIDE, 3), np.uint8)
    cv2.circle(made, (SIDE // 2, SIDE // 2), int(SIDE * rng.uniform(0.4, 0.5)), _shade(rng), -1)
    for _ in range(int(rng.integers(0, 4))):
        at = tuple(int(v) for v in rng.integers(SIDE // 4, 3 * SIDE // 4, 2))
        colour = tuple(int(v) for v in rng.integers(120, 256, 3))
        cv2.circle(made, at, int(rng.integers(15, 90)), colour, -1)
    if rng.random() < 0.7:
        made = np.asarray(cv2.GaussianBlur(made, (0, 0), float(rng.uniform(1, 15))), np.uint8)
    return made


def moon(rng: Rng) -> Pixels:
    """A disc on black, shaded, with craters, grey or coloured."""
    x, y = np.meshgrid(*[np.linspace(-1.1, 1.1, SIDE)] * 2)
    inside = x**2 + y**2 < 1
    noise = cv2.resize(rng.normal(0, 1, (24, 24)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    light = np.clip(0.75 + 0.3 * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) + 0.08 * noise, 0, 1)
    for _ in range(int(rng.integers(5, 40))):
        cx, cy, r = *rng.uniform(-0.8, 0.8, 2), rng.uniform(0.02, 0.16)
        away = np.hypot(x - cx, y - cy)
        light = np.where(away < r, light * rng.uniform(0.6, 0.95), np.where(away < 1.15 * r, light * 1.1, light))
    colour = np.array(_shade(rng) if rng.random() < 0.6 else (215, 215, 205), float)
    return np.asarray(np.clip(light[..., None] * inside[..., None] * colour, 0, 255), np.uint8)


def eye(rng: Rng) -> Pixels:
    """An eye from outside: skin, lid, white, iris, pupil, a reflection."""
    skin = np.array((205, 150, 120)) * rng.uniform(0.4, 1.15)
    made = np.full((SIDE, SIDE, 3), np.clip(skin, 0, 255), np.uint8)
    middle, wide = (SIDE // 2, SIDE // 2), int(SIDE * rng.uniform(0.3, 0.48))
    cv2.ellipse(made, middle, (wide, int(wide * rng.uniform(0.4, 0.75))), 0, 0, 360, (235, 225, 220), -1)
    iris = int(wide * rng.uniform(0.3, 0.5))
    cv2.circle(made, middle, iris, tuple(int(v) for v in rng.integers(30, 160, 3)), -1)
    for angle in rng.uniform(0, 2 * np.pi, 60):
        end = (int(middle[0] + iris * np.cos(angle)), int(middle[1] + iris * np.sin(angle)))
        cv2.line(made, middle, end, tuple(int(v) for v in rng.integers(20, 140, 3)), 1)
    cv2.circle(made, middle, int(iris * rng.uniform(0.3, 0.7)), (15, 10, 10), -1)
    cv2.circle(made, (middle[0] + iris // 3, middle[1] - iris // 3), max(3, iris // 8), (255, 255, 255), -1)
    made = np.asarray(cv2.GaussianBlur(made, (0, 0), float(rng.uniform(0.8, 4))), np.uint8)
    return _round(made, rng) if rng.random() < 0.3 else made


def page(rng: Rng) -> Pixels:
    """Lines of letters."""
    made = np.full((SIDE, SIDE, 3), int(rng.integers(200, 256)), np.uint8)
    if rng.random() < 0.3:
        made = 255 - made
    ink = (int(rng.integers(0, 90)),) * 3 if made.mean() > 128 else (int(rng.integers(160, 256)),) * 3
    size = float(rng.uniform(0.4, 1.2))
    for y in range(40, SIDE - 20, int(34 * size) + 8):
        text = "".join(chr(int(c)) for c in rng.integers(32, 123, int(rng.integers(8, 60))))
        cv2.putText(made, text, (30, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1 + (size > 0.8), cv2.LINE_AA)
    return made


def scan(rng: Rng) -> Pixels:
    """As a cross-section by OCT: bright layers in speckle."""
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    top = rng.uniform(150, 300) + 40 * np.sin(x / rng.uniform(80, 250) + rng.uniform(0, 6))
    pit = rng.uniform(0, 80) * np.exp(-(((x - SIDE / 2) / 60) ** 2))
    depth = y - top - pit
    bands = sum(
        rng.uniform(0.2, 1) * np.exp(-(((depth - d) / w) ** 2))
        for d, w in zip(np.sort(rng.uniform(0, 180, 6)), rng.uniform(4, 16, 6), strict=True)
    )
    speckle = rng.rayleigh(0.6, (SIDE, SIDE))
    grey = np.clip(255 * (0.05 + bands * (depth > -10)) * speckle, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def noise(rng: Rng) -> Pixels:
    """Noise of some grain, or a gradient, in any colours."""
    side = int(rng.choice([2, 3, 8, 40, SIDE]))
    made = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    made = np.asarray(cv2.resize(made, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)
    if rng.random() < 0.5:
        made = _tinted(made[..., 0], rng)
    return _round(made, rng) if rng.random() < 0.5 else made


DRAWN: Final[dict[str, Callable[[Rng], Pixels]]] = {
    "photograph": photograph,
    "texture": texture,
    "shapes": shapes,
    "ball": ball,
    "moon": moon,
    "eye": eye,
    "page": page,
    "scan": scan,
    "noise": noise,
}


def without_colour(pixels: Pixels, rng: Rng) -> Pixels:
    """A fundus picture as a red-free one or an angiogram: green alone, perhaps inverted, perhaps in one hue."""
    grey = pixels[..., 1].astype(np.float64)
    lit = pixels.max(axis=2) > 24
    if rng.random() < 0.3:
        grey = np.where(lit, 200 - grey, 0)
    grey = np.clip(grey * rng.uniform(0.8, 1.8), 0, 255)
    hue = rng.uniform(0.8, 1, 3) if rng.random() < 0.7 else np.array([0.1, 1, 0.1])
    return np.asarray(np.clip(grey[..., None] * hue, 0, 255), np.uint8)


def segmented(pixels: Pixels, rng: Rng) -> Pixels:
    """A drawing of a disc and its cup in flat colours on a fundus picture's field, as segmentations are kept."""
    height, width = pixels.shape[:2]
    field, disc, cup = (_shade(rng) for _ in range(3))
    lit = pixels.max(axis=2) > 24
    made = np.where(lit[..., None], np.array(field), 0 if rng.random() < 0.7 else 255).astype(np.uint8)
    at, r = (int(width * rng.uniform(0.25, 0.75)), int(height * rng.uniform(0.4, 0.6))), height * rng.uniform(0.06, 0.2)
    cv2.ellipse(made, at, (int(r), int(r * rng.uniform(1, 1.2))), 0, 0, 360, disc, -1)
    cv2.ellipse(made, at, (int(r * rng.uniform(0.3, 0.7)),) * 2, 0, 0, 360, cup, -1)
    return made


OF_FUNDUS: Final[dict[str, Callable[[Pixels, Rng], Pixels]]] = {
    "without colour": without_colour,
    "segmented": segmented,
}


def pictures(fundus: Sequence[Pixels], count: int, seed: int) -> Iterator[tuple[str, Pixels]]:
    """So many pictures of each kind, with the kind's name. fundus: photographs that some kinds are made of."""
    rng = np.random.default_rng(seed)
    for kind, draw in DRAWN.items():
        for _ in range(count):
            yield kind, draw(rng)
    for kind, spoil in OF_FUNDUS.items():
        for _ in range(count):
            yield kind, spoil(fundus[int(rng.integers(len(fundus)))], rng)
