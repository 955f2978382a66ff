"""The hand-written loop in two processes:  torchrun --nproc-per-node=2 bare_ddp.py DATA HIDDEN BATCH EPOCHS"""

import json
import os
import sys

import torch
from peers.bare_loop import network, train
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

path, hidden, batch_size, epochs = sys.argv[1:]
distributed.init_process_group("gloo")
rank, processes = distributed.get_rank(), distributed.get_world_size()
torch.set_num_threads(1)
x, y = torch.load(path, weights_only=True, mmap=True)
model = DistributedDataParallel(network(x.shape[1], json.loads(hidden), y.shape[1]))
for epoch in range(int(epochs)):
    # Every process draws the same order and takes its share of each batch.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
    shares = (index[rank::processes] for index in order.split(int(batch_size)))
    train(model, ((x[index], y[index]) for index in shares))
distributed.destroy_process_group()
os._exit(0)  # gloo's threads sometimes abort a process that ends the usual way
