"""Drives the hvac plant on the given port through pymodbus; prints `ok` when all is as expected."""

import sys

from pymodbus.client import ModbusTcpClient

client = ModbusTcpClient("127.0.0.1", port=int(sys.argv[1]))
assert client.connect()

assert client.read_holding_registers(0, count=3).registers == [200, 200, 200]
temperatures = client.read_input_registers(0, count=4).registers
assert len(temperatures) == 4 and 150 < temperatures[0] < 250, temperatures
assert client.read_discrete_inputs(0, count=1).bits[0] in (True, False)

assert not client.write_register(0, 225).isError()
assert not client.write_registers(1, [230, 235]).isError()
assert client.read_holding_registers(0, count=3).registers == [225, 230, 235]

assert not client.write_coil(2, True).isError()
assert not client.write_coils(0, [True, False]).isError()
assert client.read_coils(0, count=3).bits[:3] == [True, False, True]

for refused, code in [
    (client.read_holding_registers(3, count=1), 2),
    (client.read_input_registers(0, count=7), 2),
    (client.write_register(10, 3), 3),
    (client.write_register(9, 0), 2),
    (client.read_exception_status(), 1),
]:
    assert refused.isError() and refused.exception_code == code, refused

assert not client.write_register(101, 150).isError()
assert client.read_input_registers(100, count=1).registers == [1]
import time

time.sleep(0.6)
assert client.read_input_registers(100, count=1).registers == [2]
assert client.write_register(10, 1).exception_code == 4
print("ok")
