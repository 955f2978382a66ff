"""See `backlight.explain`."""

from backlight.command import explain

if __name__ == "__main__":
    explain()
