"""See `backlight.treat`."""

from backlight.command import treat

if __name__ == "__main__":
    treat()
