"""Train one network, or a sweep of them: see `backlight.train`."""

from backlight.command import train

if __name__ == "__main__":
    train()
