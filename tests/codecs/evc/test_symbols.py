import zlib

import numpy as np
import pytest
import torch
from maskdecay.codecs._tables import make_tables
from maskdecay.codecs.evc._symbols import SymbolReader, SymbolWriter, from_symbols, to_symbols

# Of -1, 0, 1 and of all others; of 5 and of all others.
TABLES = make_tables([-1, 5], [np.array([2**14, 2**15, 2**13, 2**13]), np.array([2**16 - 1, 1])])
VALUES = torch.tensor([[[[0.0, -1.0], [7.0, 5.0]]]])
INDICES = np.array([0, 0, 0, 1], np.int32)


def test_what_is_written_is_read() -> None:
    writer = SymbolWriter()
    for values in (VALUES, -VALUES):
        assert writer.write(values, INDICES, TABLES).tolist() == values.flatten().tolist()
    reader = SymbolReader(writer.streams)
    assert [reader.read(INDICES, TABLES).tolist() for _ in range(2)] == [[0, -1, 7, 5], [0, 1, -7, -5]]
    assert reader.check == writer.check


def test_the_check_is_that_of_all_symbols_as_bytes() -> None:
    writer = SymbolWriter()
    writer.write(VALUES, INDICES, TABLES)
    assert writer.check == zlib.crc32(bytes.fromhex("00000000 ffffffff 07000000 05000000"))
    writer.write(torch.tensor([[[[5.0]]]]), INDICES[3:], TABLES)
    assert writer.check == zlib.crc32(bytes.fromhex("00000000 ffffffff 07000000 05000000 05000000"))


def test_symbols_go_back_where_they_were() -> None:
    positions = torch.tensor([[[[True, False], [True, True]]]])
    symbols = to_symbols(VALUES.masked_select(positions))
    assert symbols.dtype == np.int32
    assert symbols.tolist() == [0, 7, 5]
    assert from_symbols(symbols, VALUES, positions).tolist() == [[[[0, 0], [7, 5]]]]


def test_tensors_of_symbols_are_contiguous_whatever_the_layout() -> None:
    values = torch.arange(24.0).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    rebuilt = from_symbols(to_symbols(values), values)
    assert rebuilt.is_contiguous()
    assert torch.equal(rebuilt, values)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 2.0**31])
def test_what_is_no_symbol_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="latents reach from"):
        SymbolWriter().write(torch.tensor([[[[0.0, value]]]]), INDICES[:2], TABLES)
