"""A hand-written loop over a Parquet file:  bare_predict.py WEIGHTS INPUT OUTPUT

It writes what `scripts/predict.py` writes: label, probability of that label, and the probability of both classes.
"""

import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from peers.bare_loop import network

weights, source, target = sys.argv[1:]
saved = torch.load(weights, weights_only=True)
model = network(saved["features"], saved["hidden"], 1)
model.load_state_dict(saved["state"])
mean, scale, writer = saved["mean"].numpy(), saved["scale"].numpy(), None
with torch.no_grad():
    for batch in pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=2**20).iter_batches(
        100_000
    ):
        columns = [batch.column(name).to_numpy() for name in saved["names"]]
        x = ((np.stack(columns, axis=1) - mean) / scale).astype(np.float32)
        logits = [model(rows) for rows in torch.from_numpy(x).split(2048)]
        positive = torch.sigmoid(torch.cat(logits))[:, 0].numpy()
        chosen = positive > 0.5
        table = pyarrow.table(
            {
                "label": np.array(["0", "1"], dtype=object)[chosen.astype(int)],
                "probability": np.where(chosen, positive, 1 - positive),
                "p_0": 1 - positive,
                "p_1": positive,
            }
        )
        writer = writer or pyarrow.parquet.ParquetWriter(target, table.schema)
        writer.write_table(table)
if writer is not None:
    writer.close()
