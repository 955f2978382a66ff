"""See `backlight.diagnose`."""

from backlight.command import diagnose

if __name__ == "__main__":
    diagnose()
