"""See `backlight.predict`."""

from backlight.command import predict

if __name__ == "__main__":
    predict()
