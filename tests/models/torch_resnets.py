"""The residual networks once more, in PyTorch, to compare with."""

import pytest

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


def conv(inputs, outputs, kernel=3, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, option):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        self.pad = 0
        if stride != 1 and option == "A":
            self.pad = (outputs - inputs) // 2
        elif stride != 1:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + self.shortcut(x))


class PreActBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, option):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride=stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride)) if stride != 1 else None

    def forward(self, x):
        y = F.relu(self.bn1(x))
        x = x if self.shortcut is None else self.shortcut(y)
        return x + self.conv2(F.relu(self.bn2(self.conv1(y))))


class ResNet(nn.Module):
    def __init__(self, block, num_blocks, width, option=None, num_classes=10):
        super().__init__()
        self.stages = len(num_blocks)
        self.conv1 = conv(3, width)
        if block is Block:
            self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, count in enumerate(num_blocks):
            outputs, blocks = width * 2**stage, []
            for index in range(count):
                blocks.append(block(inputs, outputs, 2 if stage and not index else 1, option))
                inputs = outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        if block is PreActBlock:
            self.bn = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = self.conv1(x)
        x = F.relu(self.bn1(x)) if hasattr(self, "bn1") else x
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        x = F.relu(self.bn(x)) if hasattr(self, "bn") else x
        return self.linear(x.mean((2, 3)))


def randomize(model, seed):
    """Give every weight and statistic a random value, so that nothing is 0 or 1 by default."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.copy_(noise * (2 / fan_in) ** 0.5)
            elif name.endswith(("running_var", "weight")):
                tensor.copy_(1 + 0.2 * noise.abs())
            else:
                tensor.copy_(0.1 * noise)
    return model
