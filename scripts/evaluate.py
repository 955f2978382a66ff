"""See `backlight.evaluate`."""

from backlight.command import evaluate

if __name__ == "__main__":
    evaluate()
