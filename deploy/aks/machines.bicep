// What the internal load balancer of `machines.enabled` needs, and a name for it that machines of the network can look up.
// az deployment group create --resource-group mesh --template-file machines.bicep --parameters network=shop cluster=cluster address=10.20.0.250
// Not run here: parsed.

@description('The virtual network, in this group.')
param network string

@description('The cluster, in this group.')
param cluster string

@description('Of the load balancer, free in the subnet of the cluster: service.beta.kubernetes.io/azure-load-balancer-ipv4 in machines.annotations.')
param address string

@description('The private zone; machines find the control plane as meshfed.<zone>.')
param zone string = 'mesh.internal'

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles#network-contributor
var contributor = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4d97b98b-1d4f-4787-a291-c67834d212e7')

resource where 'Microsoft.Network/virtualNetworks@2023-11-01' existing = {
  name: network
}

resource aks 'Microsoft.ContainerService/managedClusters@2024-02-01' existing = {
  name: cluster
}

resource joins 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(where.id, aks.id, contributor)
  scope: where
  properties: {
    roleDefinitionId: contributor
    principalId: aks.identity.principalId
    principalType: 'ServicePrincipal'
  }
}

resource names 'Microsoft.Network/privateDnsZones@2020-06-01' = {
  name: zone
  location: 'global'

  resource found 'virtualNetworkLinks' = {
    name: 'meshfed'
    location: 'global'
    properties: {
      registrationEnabled: false
      virtualNetwork: { id: where.id }
    }
  }

  resource control 'A' = {
    name: 'meshfed'
    properties: {
      ttl: 60
      aRecords: [{ ipv4Address: address }]
    }
  }
}

output host string = 'meshfed.${zone}'
