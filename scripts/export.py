"""See `backlight.export`."""

from backlight.command import export

if __name__ == "__main__":
    export()
