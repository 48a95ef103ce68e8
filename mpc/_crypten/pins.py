"""SHA-256 of the source of everything in CrypTen 0.4.1 that `mpc.engine` replaces, as inspect.getsource returns it."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

VERSION = "0.4.1"

_BY_MODULE = {
    "crypten.common.functions.approximations": {
        "cos": "9d1bf00c777dbe89cee62ecb3faac3ad051dcddd954078c5f777e3c24e74d9a4",
        "cossin": "59f7bee73673179539e1aab250265c49a3b0c077897280de9d7d74d0360a53fb",
        "erf": "8db861e259edcacb4d5a7584b0a74796e5a58f23f41c44287e4c751049cbbe8c",
        "exp": "0d732dcb94c378d1764c11ef07d1d3379010dcebdb434f3e027ba3c2e6ccf6f0",
        "inv_sqrt": "e8d199cddc758d13bee856911d26613c8901d676120fea79f656619ccce5d1a4",
        "log": "5fd6516bf02bb49a03c6432cece10859cca7c993b0e09e0da11d12853e11c512",
        "log_softmax": "1bb2e153e5d424503c355174d0bb8dcca65a99876460844dfc555fc212be0058",
        "reciprocal": "5c7d689eac75231495fd5498a4206c3ed4d3d29b75cc419b383635fc866e1398",
        "sigmoid": "e312191b24dde911092411d2e41231bfe4365099f91776fb327515bac0017bad",
        "sin": "ca81cdfec301a1427fc63a5ff942455b01cb079bf949be966256cb0981ae2316",
        "softmax": "ed4387a6ed6b580c598736338134da24dff02993a1ab6ff1e9c5c572fdc3526b",
        "sqrt": "ee080cd36719a73103b1047cd1924e8ad83acbdcdef96e43b773df2c02047c3a",
        "tanh": "5c87f66e34ba7826eeb122b11d22d7e39e0768983176f5207b4894d61a96eede",
    },
    "crypten.common.functions.logic": {
        "eq": "82082cf7143646b044eadfa7e7f2bf67c2dc92092c3076c9bd18d6240d1b09cb",
        "ne": "8b2c8af74ef70671dbf14cb46e0c8fc9e4b454bfcb16645aa064bfc8d0d611bc",
    },
    "crypten.common.functions.maximum": {
        "_argmax_helper": "448ed2eeae425f82f01a41e89e23d1aa4ea3618998457f0e51c6736fdb43be65",
        "_max_helper_all_tree_reductions": "b78773011bc00f706dca9f520319c46b90a54933b059e36975fa859dae4ecbe2",
    },
    "crypten.common.functions.pooling": {
        "_max_pool2d_backward": "4905d7d385153d5a4a473dd7ada405dd1eb746f64f982d4076e77a304f05f5cd",
        "max_pool2d": "acd2844a167fc6ac0858861e7eeb2dc5c08e7f6e97451333874aeef87090e448",
    },
    "crypten.common.functions.power": {
        "pow": "d1a2340cd4813df53983cd737bf182dc4583395dc319713ff68756e2516ef085",
    },
    "crypten.common.functions.regular": {
        "__cat_stack_helper": "74f9d649e78bfb75015a813ac7fbf84d17688893df36c14a756feeaf2a995909",
        "var": "4c1d2ef7adca3c1b07aaa642537b9ae16a0ae7494b45b725392ea6b4aac3b480",
    },
    "crypten.common.rng": {
        "generate_kbit_random_tensor": "567f9ad75ef23c44cf363b95f5cc8bdeded50cd8fc248b724e86346e3ad9452a",
        "generate_random_ring_element": "0abbd5096ca9c8084cd65afc40a2ab679fec78b5dc977864c8f0cc1e6a0291fe",
    },
    "crypten.common.serial": {
        "_safe_legacy_load": "8e1af8491c5068bee4d8779215906d4dfd06a5560f4743de921bd0f77dc07ae6",
        "restricted_loads": "ebf8769d2b4c37d465ce9649844e34aef7b9c1a998f04e7fd082203d91658e22",
    },
    "crypten.communicator": {
        "DistributedCommunicator": "526c6716621971b8d39d04b86d764c5f9ad177faf0e20a2fa7cdb51e0c53500e",
        "InProcessCommunicator": "dfc9e98264cac5d00322ff99406e22bb1e5dc9233d3c841424962013575ef448",
        "_init": "471ec0c1d2e816d624b1f3544e33b981be170eeb186a05df559ac37f34627fe0",
        "get": "1367881a48f78ea239cac0aefa61dc489624afbc3061b2f48a9fba94ac27c5a0",
        "is_initialized": "56cde1cc95aa7a955e66c66bfcabd4a21ba805af1af884a14046b3070d0f8442",
        "uninit": "c11a8a92793940ae746d1e1a2b18c3a8c90784e0a6d8ad1d2f0ac4fe07157473",
    },
    "crypten.cryptensor": {
        "CrypTensor.__getattribute__": "e646669947c9da5e38a0dac6d894a43fa0f2963ed8c338b64fa0e66c3f3520c5",
    },
    "crypten.debug.debug": {
        "validate_correctness": "cc754da740cd1d29c4654efc27a78ff6007ad24c0bd82229194894d8f295b1d5",
    },
    "crypten.encoder": {
        "FixedPointEncoder.decode": "fa06f0447f229ff64564744bca76535debbf7aeb5ce86306afbea384ff6ffd4c",
        "FixedPointEncoder.encode": "5dde45abd57964d9d9b6f9ceb961ac02efe1f82f7efd139bf654486715305c3e",
    },
    "crypten.gradients": {
        "AutogradBatchNorm.forward": "4c33f8954cbdf4be7bf89ff85d70054310ed6c8b3d5aafd6e69434befb5d3f3b",
        "AutogradBinaryCrossEntropy.forward": "98e61cd6d6fc658dd8899f4cc90903826dca39e31cc8adbbfac95c5c89202faf",
        "AutogradBinaryCrossEntropyWithLogits.forward": "1f70533ff17ec6a571afb280fa8bd94e2718f1d945068ec248734210fb807966",
        "AutogradConv1D.backward": "a7f72f1feab53e152649611c3b6acf763922f141f70ffa273b1edc8d9e538265",
        "AutogradConv2D.backward": "f7ace055c353011d88f74625de5541e332eea8918a0d34808cc06e4004490a7e",
        "AutogradCrossEntropy.forward": "8682819bd0cfd8d057e91c8db88376764e000185397e465fe82eb222ad3b4a15",
        "AutogradDropout.forward": "ac846e1125864f37d98c8ca8a4927a3ba4e41b2734abdce218e955fb8001f37d",
        "AutogradErf.backward": "888732bfc8a2557c4c8990da84cc791552ef6f1e165fe833a16d568554953922",
        "AutogradFeatureDropout.forward": "8eea76c3edda4d9e046670f5beeb637f62ca86ec0758b7cca1b0fe222bc743ee",
        "AutogradLogSoftmax.backward": "5abfc0557ac1050fcf4503c4883779405d9f090a170a563b7f8639d9f8f0b577",
        "AutogradMatMul.backward": "d356d09fa65fdfb4cb6da57465e53eed70f05d2748b1bd91d6e7d0e9e5d3c589",
        "AutogradMean.backward": "45ad9837571a34c82ef9049da13cd09875f47e3284799d4682d14cf44240ec7e",
        "AutogradMean.forward": "50a8d4e77c6d4f5c700214b54746cdb8e1f75ddf64972e8a6c2fd236259bccbb",
        "AutogradNorm.backward": "e849e5cd4a8924143bad51ee6c5a4184e4fef9d0cc4e9c8e28a2a6409536a6f3",
        "AutogradPolynomial.backward": "0ea031e371632f508003cce3624cb7e230165a4391fee4fb6d1f16d085fa064c",
        "AutogradSqrt.backward": "5a14ecdb6eaabdc7aba568ae81514444e346ec5641f8e9755e7114749c4c72ea",
        "AutogradSqrt.forward": "4554dbb3405fa6087bddb0d3d237243989778784c4b7fe4572a3ab0ff26e283a",
        "AutogradSum.backward": "82d8b33771423e3469f100a2a2c3264d7b5e791d44abf65ad1bb5389f8f746ba",
        "AutogradSum.forward": "30cca0387d647b91d630537d9c9ac51aeae2d85cfa28bc73fbccec718ae28f83",
        "AutogradVariance.backward": "7fc08f734f00a21c4a75ced86673fe30bc37d352604f5940bdb949a4a7eeb2b7",
        "AutogradVariance.forward": "b557282130ce71fceaf911a0878ce31cc801bd81e2c1be773ed7791de7780d5e",
    },
    "crypten.mpc.context": {
        "run_multiprocess": "295e56275438dff6711568d41d50cf67d7a461c0eed434b3df50f79ab6d9df95",
    },
    "crypten.mpc.mpc": {
        "MPCTensor.__repr__": "44d65fbddedec1d7e5c113ff884a6d8acc533019aa52a67ef26e6b8cf0a039a2",
        "MPCTensor._eqz_2PC": "9997fa88ed98d22fa0ab9b34ac4ca424853cd3676b91f8c37f080bc1356c324f",
        "MPCTensor._ltz": "428e4584c122b85c4a381888dec782700ac0ac0466e75fcd22cdef93316612db",
        "MPCTensor.clone": "2f33636b1f9d1019236136d85d2c6b6dc92e1f0edaaca010f69df7e573b6aada",
        "MPCTensor.eq": "4bc0f28211338209adf62f29d56f76d2c93d6e7f7d0d8503ec13f9a3fdacbf3c",
        "MPCTensor.from_shares": "9ad4c654a4625590bedc1475efe8191fd4e032bb9d9bbc1292d7be45dc50ba1d",
        "MPCTensor.ne": "0781dd5243f79e87b257c8ac8ad0257de604d5c43212e40b54921b01208886c1",
        "MPCTensor.shallow_copy": "cdadaea355c877a2261ac6531a05417e06457be382643e248480f9afbe88f05a",
    },
    "crypten.mpc.primitives.arithmetic": {
        "ArithmeticSharedTensor.__init__": "528265739012a98620caff33a7e977347ea96138adb25b97a84177cfa62c462e",
        "ArithmeticSharedTensor.__repr__": "7ace0b2c8d98bfe2969e6b89e27dcdab777e801ba012f82ff63e1fe346bda636",
        "ArithmeticSharedTensor._arithmetic_function": "752cecabce00121d7dc1f96fa71b03d2a65b6fbb4bbb53ce01b98ff71a3ba37f",
        "ArithmeticSharedTensor.div_": "dbf750b5d6e173ef1e9067744cb50f3383424b12580774bcf324b69da9baecfa",
        "ArithmeticSharedTensor.square_": "17b7c30e815d832b9f98900a8508ceafe3e1ec98af622e21afc7dace9b7da90a",
    },
    "crypten.mpc.primitives.beaver": {
        "__beaver_protocol": "ad64a467982a2356e01dc982cdb66e5a982a7ef9b495a0fcb3f23ed18e52dc5c",
        "square": "9c1826d37d654ba64a04a35ab52e766012b465498b70161010a26a25301c8f1c",
        "truncate": "6cda8b4ddeb7e61bb8616cc02e85ee591e8f8bd9a83c3ab21cddfcf32192bd68",
        "wraps": "7a3790f114fe47197de1730fdab65fafc348855fc305d95a8d958747d435a6ac",
    },
    "crypten.mpc.primitives.binary": {
        "BinarySharedTensor.__repr__": "a39fa8b1909b5422e0026d54927e8c29d73492fa7e1c95c9503b3b3a1eadf82e",
    },
    "crypten.mpc.primitives.converters": {
        "_A2B": "476eb2205f241b03583bacf0393d6ae060c3faaaa19c158d6251d05a34fd47f5",
    },
    "crypten.mpc.primitives.replicated": {
        "__replicated_secret_sharing_protocol": "27f8c5c67d8848eae6d1f54ce9aae65caead68e5276a90f70304784e45abedb4",
        "square": "3ef206db648eaee93fefd28ae87c2dfdbd7d20dc60ae570e36e872913ce322df",
        "truncate": "925650a6d688fb261c0aa7301656b080f147b5ae49c9b83f208025e72583ec9b",
    },
    "crypten.mpc.provider.provider": {
        "TupleProvider.__init__": "aaadc44395139df780161cabf777f95174010ca1b6d047d2fbb09996fe6da2eb",
    },
    "crypten.mpc.provider.ttp_provider": {
        "TTPClient._init": "bacbba7b87b034c6ad2bb7928cc1574e7a3b5fcc50ef2e07587bb99c990280ef",
        "TTPServer.__init__": "340ff385e2a8e9b28001a54f8609c65c7cd7081277526de81e52f7c58074ac41",
    },
    "crypten.nn.module": {
        "Graph.to_pytorch": "7e6c57e191ea72755acac857863ceead719689f7b8d5f84674ad1d7d918fe260",
        "_BatchNorm.train": "24d0d5d9962319a08d1ae8b21078cd744758b4277739a8be1e254b5fa2a1082f",
    },
    "crypten.nn.onnx_converter": {
        "from_onnx": "f265398a29e81760a54950522d0fbb4d95c425444ce3c9e43ec1e69d0d9cfad9",
        "from_pytorch": "857cca6b9ca65d47d533a12f91825a7af6687910b7806b10452780c770e27fae",
    },
    "crypten.nn.privacy.dp_split": {
        "DPSplitModel.__init__": "f6726d76ef5fb5f04931be76185c5e767a345e1510d870babda1620140b19dc2",
    },
    "crypten": {
        "_setup_prng": "7157f9d8885afb1dde7857700da36fc503445de6a42ff15cef11799404cfec1a",
        "_sync_seeds": "14c254f5681c3d0821d37b653d817b3b4744b56b673ee4a5c47794d421ca5c85",
        "fill_cache": "8a2aac78ea2cd3be1e7540cfd81a02943aed09313a1ff1b074b84abbc90cb878",
        "init": "13e94c20c3548b08512808ac0b88063f698d1822eddc5fda610a827c389af897",
        "init_thread": "215050523ec71264ea2535855c18353a1f14823126cbac09b8443aef014c7623",
        "load": "6fdd3ca8d9b618c38b085a425ce695f1d46a62b6cf37c88435722a6871f7260e",
        "load_from_party": "468941e200e1a9fe1540d27f79cda4c3b4b689da292f1e85209347a449d6112b",
        "manual_seed": "b086d148dd25a51061238b6128a2146127aa0ec92565bd33bc4d05dec10cfb09",
        "save": "2d381bc7ba362556dbda8f6a6e903f4a900c2c6df217ba98788fbc8a01f8b1c2",
        "save_from_party": "0bbf037a8ddac2bbf41194ec3ecd32149e6b6bc5c9ff111b71da25e8121e86f0",
        "trace": "49cfeb8d7e48ece46e542f1fa8e8b7097d1451a42b6080e756fd713ed7a9d6a8",
        "trace_once": "6c27d8c4d2b468b74dcd28b4a0ee0b7b8dd1defa0e6e02971d06e17482e75b76",
        "uninit": "f76c3b181b3c467399dcc3822e91cd62366d6da169bf05eb5cd7dee7e3cc5dc2",
    },
}

PINS: dict[str, str] = {f"{module}:{name}": pin for module, pins in _BY_MODULE.items() for name, pin in pins.items()}


def locate(path: str) -> tuple[Any, str]:
    """Who has the function "module:Class.function", and its name there.  Raises: AttributeError, ImportError."""
    module, _, dotted = path.partition(":")
    *owners, name = dotted.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    return owner, name


def check_pins(pins: Mapping[str, str]) -> None:
    """Compare the source of functions ("module:Class.function") with SHA-256 hashes of it.

    Raises: ImportError naming the first that differs or is missing.
    """
    for path, pinned in pins.items():
        try:
            owner, name = locate(path)
            source = inspect.getsource(inspect.unwrap(getattr(owner, name)))
        except (AttributeError, ImportError, OSError, TypeError) as exc:
            raise ImportError(f"CrypTen {VERSION} should have '{path}', and this one does not") from exc
        if hashlib.sha256(source.encode()).hexdigest() != pinned:
            raise ImportError(f"'{path}' is not the function of CrypTen {VERSION} that mpc.engine replaces")
