"""For tests that change a graph: the file says so, as if it had been exported like that."""

import dataclasses

import onnx

from calibration.fingerprints import model_hash
from runtime.files.contract import METADATA_KEY, Contract


def save_signed(model, path, **changes):
    """Writes a model whose contract, with these fields changed, has the hash of its graph; returns the path."""
    kept = {entry.key: entry.value for entry in model.metadata_props}
    contract = dataclasses.replace(Contract.from_json(kept[METADATA_KEY]), graph_sha256=model_hash(model), **changes)
    onnx.helper.set_model_props(model, {**kept, METADATA_KEY: contract.to_json()})
    onnx.save(model, path)
    return path


def unsigned(path):
    """The bytes of a model file as they were before contracts had a hash of the graph: every change of it is let through."""
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    contract = dataclasses.replace(Contract.from_json(kept[METADATA_KEY]), graph_sha256=None)
    onnx.helper.set_model_props(model, {**kept, METADATA_KEY: contract.to_json()})
    return model.SerializeToString()
