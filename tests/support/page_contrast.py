"""Contrast of text on rendered pages, by the formula of WCAG 2.2 (relative luminance)."""

from __future__ import annotations

from playwright.sync_api import Page

LEAST_OF_TEXT, LEAST_OF_LARGE_TEXT = 4.5, 3.0
"""WCAG 1.4.3, level AA; large is 24 px, or 18.7 px and bold."""
LEAST_OF_MARKS = 3.0
"""WCAG 1.4.11."""

# every visible text with its colour, the colour behind it, its size and weight; disabled controls
# are exempt, and icons are text of a font of symbols
TEXTS = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, below) => [0, 1, 2].map(
        i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
    const behind = element => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) {
            layers.unshift(rgba(getComputedStyle(e).backgroundColor));
        }
        return layers.reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement;
        const words = node.textContent.trim();
        if (!words || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})
            || element.closest('[disabled], [aria-disabled="true"], style, script, canvas')
            || element.closest('[data-testid="stIconMaterial"]')) continue;
        const box = element.getBoundingClientRect();
        if (box.width < 2 || box.height < 2) continue;
        const style = getComputedStyle(element), background = behind(element);
        let opacity = 1;
        for (let e = element; e; e = e.parentElement) opacity *= getComputedStyle(e).opacity;
        const colour = rgba(style.color);
        found.push({
            words: words.slice(0, 60),
            colour: over([...colour.slice(0, 3), colour[3] * opacity], background).slice(0, 3),
            background: background.slice(0, 3),
            pixels: parseFloat(style.fontSize),
            weight: parseInt(style.fontWeight),
        });
    }
    return found;
}"""

Rgb = tuple[float, ...]


def contrast(first: Rgb, second: Rgb) -> float:
    """Return the contrast of two colours (0 to 255 each), from 1 to 21."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def rgb(hexadecimal: str) -> Rgb:
    """Return #rrggbb as numbers from 0 to 255."""
    return tuple(int(hexadecimal[start : start + 2], 16) for start in (1, 3, 5))


def faint_texts(page: Page) -> list[str]:
    """Return the visible texts of a page whose contrast is below AA."""
    faint = []
    for text in page.evaluate(TEXTS):
        is_large = text["pixels"] >= 24 or (text["pixels"] >= 18.66 and text["weight"] >= 700)
        found = contrast(tuple(text["colour"]), tuple(text["background"]))
        if found < (LEAST_OF_LARGE_TEXT if is_large else LEAST_OF_TEXT):
            faint.append(f"{found:.2f}: {text['words']}")
    return faint


def _luminance(colour: Rgb) -> float:
    shares = [value / 255 for value in colour]
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
