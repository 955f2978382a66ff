"""See `backlight.report`."""

from backlight.command import report

if __name__ == "__main__":
    report()
