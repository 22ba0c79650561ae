"""Augmentation that moves picture, masks and fovea together: one affine map, then colour on the picture alone."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat

_LUMA = (0.299, 0.587, 0.114)  # of RGB


class Augmentation(BaseModel):
    """Ranges, each symmetric around no change; 0 everywhere gives the engine's own picture where nothing is rescaled."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    rotation_degrees: NonNegativeFloat
    log_scale: NonNegativeFloat  # scale = exp(+-log_scale)
    shift: NonNegativeFloat  # of the side
    flip: bool  # horizontal: a right eye becomes a left eye
    log_gain: NonNegativeFloat  # per channel, and once for all channels
    log_gamma: NonNegativeFloat
    blur_sigma_px: NonNegativeFloat
    # cameras and files of other makes; absent from older checkpoints
    log_channel_gamma: NonNegativeFloat = 0.0
    log_saturation: NonNegativeFloat = 0.0
    log_resolution: NonNegativeFloat = 0.0  # half of the pictures: made smaller by up to exp(-this), and large again
    jpeg_loss: Annotated[int, Field(ge=0, le=95)] = 0  # half of the pictures: quality 100 - this and better


def affine(
    settings: Augmentation, source_size: int, size: int, rng: np.random.Generator, scale: float = 1.0
) -> NDArray[np.float64]:
    """A random map (2, 3) from a square of `source_size` pixels to one of `size`; `scale` is there without chance."""
    angle = np.deg2rad(rng.uniform(-1, 1) * settings.rotation_degrees)
    zoom = scale * size / source_size * np.exp(rng.uniform(-1, 1) * settings.log_scale)
    shift = rng.uniform(-1, 1, 2) * settings.shift * size
    mirror = -1.0 if settings.flip and rng.random() < 0.5 else 1.0
    linear = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([mirror, 1.0])
    centre_in, centre_out = np.full(2, (source_size - 1) / 2), np.full(2, (size - 1) / 2)
    return np.column_stack([linear, centre_out + shift - linear @ centre_in])


def move_point(matrix: NDArray[np.float64], x: float, y: float) -> tuple[float, float]:
    """A point through an affine map (2, 3)."""
    moved = matrix @ (x, y, 1.0)
    return float(moved[0]), float(moved[1])


def colour(image: NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random gain per channel, gain, gamma and blur, then `camera`. Args: image: uint8 (S, S, 3) RGB."""
    gain = np.exp(rng.uniform(-1, 1, 3) * settings.log_gain / 2 + rng.uniform(-1, 1) * settings.log_gain)
    gamma = np.exp(rng.uniform(-1, 1) * settings.log_gamma)
    levels = (np.arange(256) / 255)[:, None] ** gamma * gain * 255
    coloured = cv2.LUT(image, np.clip(np.rint(levels), 0, 255).astype(np.uint8)[:, None, :])
    sigma = rng.uniform(0, 1) * settings.blur_sigma_px
    blurred = cv2.GaussianBlur(coloured, (0, 0), sigma) if sigma > 0.3 else coloured
    return camera(np.asarray(blurred, np.uint8), settings, rng)


def camera(image: NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """As if another camera or program had made the file: gamma per channel, saturation, resolution, JPEG.

    What is off draws nothing from `rng`, so that runs without it stay what they were. Args: image: uint8 (S, S, 3) RGB.
    """
    if settings.log_channel_gamma:
        gammas = np.exp(rng.uniform(-1, 1, 3) * settings.log_channel_gamma)
        curves = np.rint(255 * (np.arange(256) / 255)[:, None] ** gammas).astype(np.uint8)
        image = np.asarray(cv2.LUT(image, curves[:, None, :]), np.uint8)
    if settings.log_saturation:
        colourful = float(np.exp(rng.uniform(-1, 1) * settings.log_saturation))
        mix = colourful * np.eye(3) + (1 - colourful) * np.array(_LUMA)
        image = np.asarray(cv2.transform(image, mix), np.uint8)
    if settings.log_resolution and rng.random() < 0.5:
        side = image.shape[0]
        small = max(8, round(side * float(np.exp(-rng.uniform() * settings.log_resolution))))
        shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
    if settings.jpeg_loss and rng.random() < 0.5:
        quality = int(rng.integers(100 - settings.jpeg_loss, 101))
        _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)[..., ::-1].copy()
    return image
