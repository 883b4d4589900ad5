import importlib.util
from pathlib import Path


def test_gammas_thin_out_and_the_task_is_still_solved(capsys):
    path = Path(__file__).parents[2] / "examples" / "batchnorm_gammas.py"
    spec = importlib.util.spec_from_file_location("batchnorm_gammas", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    results = example.main()
    assert results["without"][0] == [16, 16]
    assert all(0 < left <= 12 for left in results["with"][0])
    assert results["with"][1] > 0.95
    assert "with sparsity: channels left" in capsys.readouterr().out
