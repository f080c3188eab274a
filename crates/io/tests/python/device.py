"""A Modbus TCP device by pymodbus (3.13 or newer) with the registers of examples/hvac; prints its port.

Argument: whether the comms watchdog works (yes/no). When standard input ends it prints what was written and ends.
"""

import asyncio
import socket
import sys

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

HEARTBEAT = 100
WATCHDOG_MS = 101
WATCHDOG_STATE = 100
READ_INPUT = 4
WRITES = (6, 16)

written = {}


async def on_access(function, start, address, count, registers, values):
    """Notes holding register writes and keeps the watchdog's state."""
    # A write is followed by a read of the same registers, without values.
    if function in WRITES and values is not None:
        written.update(zip(range(address, address + count), values))
    if function == READ_INPUT and address <= WATCHDOG_STATE < address + count:
        armed = sys.argv[1] == "yes" and written.get(WATCHDOG_MS, 0) > 0
        registers[WATCHDOG_STATE - start] = int(armed)


async def main():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    coils = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    discrete = [SimData(0, values=[True] + [False] * 15, datatype=DataType.BITS)]
    holding = [SimData(0, values=[0] * 128, datatype=DataType.REGISTERS)]
    inputs = [SimData(0, values=[215, 0xFFCE, 180, 334] + [0] * 124, datatype=DataType.REGISTERS)]
    device = SimDevice(0, simdata=(coils, discrete, holding, inputs), action=on_access)
    server = ModbusTcpServer(device, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(" ".join(f"{address}={value}" for address, value in sorted(written.items())), flush=True)
    await server.shutdown()


asyncio.run(main())
