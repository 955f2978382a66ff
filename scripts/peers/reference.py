"""The reference program as a bare script, for `benchmark.py run`."""

import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(42)
x, y = make_classification(n_samples=1000, n_features=10, n_classes=2, random_state=42)
x_train, x_test, y_train, y_test = (
    torch.tensor(part, dtype=torch.float32) for part in train_test_split(x, y, test_size=0.2, random_state=42)
)
y_train, y_test = y_train[:, None], y_test[:, None]

model = nn.Sequential(nn.Linear(10, 5), nn.Sigmoid(), nn.Linear(5, 1), nn.Sigmoid())
criterion = nn.BCELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(100):
    optimizer.zero_grad()
    loss = criterion(model(x_train), y_train)
    loss.backward()
    optimizer.step()
    if (epoch + 1) % 10 == 0:
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")
with torch.no_grad():
    accuracy = ((model(x_test) > 0.5) == y_test).float().mean()
print(f"test accuracy {accuracy.item():.4f}")
