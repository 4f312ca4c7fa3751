import json

from shrinkc.compiler.devices import cpu_name, describe_host


def test_the_host_is_described_for_a_report() -> None:
    host = describe_host()
    assert set(host) == {"cpu", "cores", "machine", "system", "python"}
    assert all(host.values())
    assert isinstance(host["cores"], int)
    assert host["cores"] >= 1
    assert json.loads(json.dumps(host)) == host


def test_the_processor_in_cpuinfo() -> None:
    x86 = "processor\t: 0\nmodel\t\t: 49\nmodel name\t: AMD EPYC 7R32\n\nmodel name\t: other\n"
    board = "processor\t: 0\nCPU part\t: 0xd08\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
    assert cpu_name(x86) == "AMD EPYC 7R32"
    assert cpu_name(board) == "Raspberry Pi 4 Model B Rev 1.4"
    assert cpu_name("model : 49\n") is None
    core = "processor : {}\nCPU implementer : {}\nCPU part : {}\n\n"
    cores = [(0, "0x41", "0xd05"), (1, "0x41", "0xd0b"), (2, "0x41", "0xd0b"), (3, "0x51", "0xd0b")]
    assert cpu_name("".join(core.format(*one) for one in cores)) == "1 Cortex-A55, 2 Cortex-A76"
    assert cpu_name("") is None
