"""The networks of the paper's Tables 2 and 3 that are built here, by their names there."""

from __future__ import annotations

from model.config import NetworkConfig

_MIDDLE = ((1,), (2,), (3,))

VARIANTS: dict[str, NetworkConfig] = {
    "I5T3": NetworkConfig(),
    "I1T1": NetworkConfig(frames=1, cell_frames=((0,), (0,), (0,))),
    "I3T1": NetworkConfig(frames=3, cell_frames=((0,), (1,), (2,))),
    "I5T1": NetworkConfig(cell_frames=_MIDDLE),
    "I5T5": NetworkConfig(cell_frames=((0, 1, 2, 3, 4),) * 3),
    "I7T1": NetworkConfig(frames=7, cell_frames=((2,), (3,), (4,))),
    "3D-sub": NetworkConfig(temporal="conv3d"),
    "LSTM-sub": NetworkConfig(temporal="conv3d", spatial_cell="lstm"),
    "Spatial-sub": NetworkConfig(spatial="chained"),
    "Temporal-sub": NetworkConfig(temporal="chained"),
}
