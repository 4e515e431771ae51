"""What makes a training what it is: the key that its folder is claimed with."""

import torch
from safetensors.torch import save_file

from fusion.objectives import DualHead, ForwardKL
from fusion.stages.train import _objective_key


def test_an_objective_is_its_settings_and_the_contents_of_the_files_they_name(tmp_path):
    assert _objective_key(ForwardKL()) == ForwardKL().model_dump()
    file = tmp_path / "basis.safetensors"
    keys = []
    for value in (0.0, 1.0, 0.0):
        save_file({"basis": torch.full((7, 3), value)}, file)
        keys.append(_objective_key(DualHead(head=str(file))))
    assert keys[0] == keys[2] != keys[1]
    assert keys[0] | {"files": 0} == keys[1] | {"files": 0}
