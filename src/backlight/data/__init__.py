"""Data: sources, splits, encoding, batches, and the LightningDataModule that joins them."""
