"""What stands in for which function of CrypTen, where its own classes are not needed; `mpc.engine` puts it in place."""

from __future__ import annotations

from typing import Any

from mpc._crypten import functions, losses, maths, nn, seams
from mpc._crypten import max as largest
from mpc._crypten.refused import refusal

REPLACED: dict[str, Any] = {
    "crypten.communicator:get": seams.SessionCommunicator.get,
    "crypten.communicator:is_initialized": seams.SessionCommunicator.is_initialized,
    "crypten.communicator:DistributedCommunicator": seams.SessionCommunicator,
    "crypten.communicator:InProcessCommunicator": seams.SessionCommunicator,
    "crypten.common.rng:generate_random_ring_element": seams.ring_elements,
    "crypten.common.rng:generate_kbit_random_tensor": seams.random_bits,
    "crypten.common.functions.approximations:cos": functions.cos,
    "crypten.common.functions.approximations:cossin": functions.cossin,
    "crypten.common.functions.approximations:erf": functions.erf,
    "crypten.common.functions.approximations:exp": functions.exp,
    "crypten.common.functions.approximations:inv_sqrt": functions.inv_sqrt,
    "crypten.common.functions.approximations:log": functions.log,
    "crypten.common.functions.approximations:reciprocal": functions.reciprocal,
    "crypten.common.functions.approximations:sigmoid": functions.sigmoid,
    "crypten.common.functions.approximations:sin": functions.sin,
    "crypten.common.functions.approximations:sqrt": functions.sqrt,
    "crypten.common.functions.approximations:tanh": functions.tanh,
    "crypten.common.functions.approximations:log_softmax": losses.log_softmax,
    "crypten.common.functions.approximations:softmax": losses.softmax,
    "crypten.common.functions.maximum:_argmax_helper": largest.argmax_helper,
    "crypten.common.functions.maximum:_max_helper_all_tree_reductions": largest.max_helper,
    "crypten.common.functions.pooling:_max_pool2d_backward": largest.max_pool2d_backward,
    "crypten.common.functions.pooling:max_pool2d": largest.max_pool2d,
    "crypten.common.functions.power:pow": maths.power,
    "crypten.common.functions.regular:__cat_stack_helper": nn.join,
    "crypten.common.functions.regular:var": nn.variance,
    "crypten.encoder:FixedPointEncoder.encode": maths.encode,
    "crypten.encoder:FixedPointEncoder.decode": maths.decode,
    "crypten.gradients:AutogradDropout.forward": maths.dropout_forward,
    "crypten.gradients:AutogradFeatureDropout.forward": maths.feature_dropout_forward,
    "crypten.gradients:AutogradBatchNorm.forward": nn.batchnorm_forward,
    "crypten.gradients:AutogradBinaryCrossEntropy.forward": losses.bce_forward,
    "crypten.gradients:AutogradBinaryCrossEntropyWithLogits.forward": losses.bce_logits_forward,
    "crypten.gradients:AutogradCrossEntropy.forward": losses.cross_entropy_forward,
    "crypten.gradients:AutogradErf.backward": losses.erf_backward,
    "crypten.gradients:AutogradLogSoftmax.backward": losses.log_softmax_backward,
    "crypten.gradients:AutogradConv1D.backward": nn.conv_backward,
    "crypten.gradients:AutogradConv2D.backward": nn.conv_backward,
    "crypten.gradients:AutogradMatMul.backward": nn.matmul_backward,
    "crypten.gradients:AutogradMean.forward": nn.mean_forward,
    "crypten.gradients:AutogradMean.backward": nn.mean_backward,
    "crypten.gradients:AutogradNorm.backward": nn.norm_backward,
    "crypten.gradients:AutogradPolynomial.backward": nn.polynomial_backward,
    "crypten.gradients:AutogradSqrt.forward": functions.sqrt_forward,
    "crypten.gradients:AutogradSqrt.backward": functions.sqrt_backward,
    "crypten.gradients:AutogradSum.forward": nn.sum_forward,
    "crypten.gradients:AutogradSum.backward": nn.sum_backward,
    "crypten.gradients:AutogradVariance.forward": nn.variance_forward,
    "crypten.gradients:AutogradVariance.backward": nn.variance_backward,
    "crypten.nn.module:_BatchNorm.train": nn.batchnorm_train,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor.__init__": maths.init_shared,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor.__repr__": maths.hidden,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor._arithmetic_function": maths.arithmetic,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor.div_": maths.div_,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor.square_": maths.square_,
    "crypten.mpc.primitives.beaver:__beaver_protocol": maths.beaver_protocol,
    "crypten.mpc.primitives.beaver:square": maths.beaver_square,
    "crypten.mpc.primitives.binary:BinarySharedTensor.__repr__": maths.hidden,
    "crypten.mpc.mpc:MPCTensor.__repr__": maths.hidden,
}


def _no_gradient(name: str) -> Any:
    return refusal(f"the gradient of CrypTen's '{name}'")


GRADIENTS: dict[str, tuple[Any, Any]] = {
    "expand": (nn.expand_forward, nn.expand_backward),
    "inv_sqrt": (nn.inv_sqrt_forward, nn.inv_sqrt_backward),
    **{
        name: (lambda _ctx, x, *args, _name=name, **kwargs: getattr(x, _name)(*args, **kwargs), _no_gradient(name))
        for name in ("conv_transpose1d", "conv_transpose2d", "index_add", "repeat", "scatter_add", "unfold")
    },
}
"""Operations of which CrypTen would silently drop the gradient: forward and backward of each."""
