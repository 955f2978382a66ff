"""See `backlight.gradcheck`."""

from backlight.command import gradcheck

if __name__ == "__main__":
    gradcheck()
