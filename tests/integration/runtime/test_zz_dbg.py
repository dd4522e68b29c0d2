import os, resource
import importlib.util, sys
spec=importlib.util.spec_from_file_location("rtconf","/work/main/tests/integration/runtime/conftest.py"); m=importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
sandbox=m.sandbox
def test_x(sandbox):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for _ in range(1500):
        os.set_inheritable(os.open("/dev/null", os.O_RDONLY), True)
    print(sandbox.sh("ls -l /proc/$$/fd"))
    assert 0
